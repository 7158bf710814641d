-- Posts one notification after the other, on connections that stay, and says what became of them.

wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"notification":{"channel":"wrk","text":"Bonjour"}}'

function done(summary)
  local errors = summary.errors
  local sum = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  print(string.format("answers %d errors %d", summary.requests, sum))
end
