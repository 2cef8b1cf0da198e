-- Give a lease back, for its holder only.
-- KEYS[1] {etl:last_sync:<collection>}:<lease>  string, expires: the holder
-- ARGV[1] holder
-- Returns 1, or 0 when it was no longer held.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
return redis.call('DEL', KEYS[1])
