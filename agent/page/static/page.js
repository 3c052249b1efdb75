// What HTML and htmx cannot: say that the agent does not answer, and keep a live log's end in view.
"use strict";

const lost = document.getElementById("lost");
document.addEventListener("htmx:error", () => { lost.hidden = false; });
document.addEventListener("htmx:after:swap", () => { lost.hidden = true; });

const steps = document.getElementById("steps");
const live = document.getElementById("live");
if (steps && live) {
  const atEnd = () => innerHeight + scrollY >= document.documentElement.scrollHeight - 80;
  let following = true;
  addEventListener("scroll", () => { following = atEnd(); }, { passive: true });
  new MutationObserver(() => {
    for (const log of steps.querySelectorAll("pre")) {
      if (log.scrollHeight - log.scrollTop - log.clientHeight < 400) log.scrollTop = log.scrollHeight;
    }
    if (following) scrollTo(0, document.documentElement.scrollHeight);
  }).observe(steps, { childList: true, subtree: true });
}
