-- Request for wrk from its arguments (method, path, body bytes, API key); the summary as one JSON line.
function init(args)
  wrk.method = args[1]
  wrk.path = args[2]
  local body_bytes = tonumber(args[3])
  if body_bytes > 0 then
    wrk.body = string.rep("x", body_bytes)
    wrk.headers["content-type"] = "application/octet-stream"
  end
  wrk.headers["x-api-key"] = args[4]
  wrk.headers["user-agent"] = "wrk"
  wrk.headers["accept"] = "*/*"
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\nJSON {"requests":%d,"duration_us":%d,"bytes":%d,"p50_us":%d,"p99_us":%d,"errors":%d}\n',
    summary.requests, summary.duration, summary.bytes,
    latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
