-- Signed deliveries for wrk, each with an id of its own, so that none is a duplicate.
-- Arguments: a file with a whole request in which DELIVERY-ID stands for the id; the ids' prefix.
local before, after, prefix
local sent = 0

function init(arguments)
   local file = assert(io.open(arguments[1], "rb"))
   local whole = file:read("*a")
   file:close()
   local from, to = whole:find("DELIVERY-ID", 1, true)
   prefix = arguments[2]
   before, after = whole:sub(1, from - 1), whole:sub(to + 1)
end

function request()
   sent = sent + 1
   return before .. prefix .. sent .. after
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      "\nFIGURES %d %d %f %f %d\n", summary.requests, summary.duration,
      latency:percentile(50), latency:percentile(99),
      errors.connect + errors.read + errors.write + errors.timeout + errors.status))
end
