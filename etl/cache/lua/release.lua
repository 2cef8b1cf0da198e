-- Release a lease, for its holder only.
-- KEYS[1] {etl:last_sync:<collection>}:<lease>  string, expires: the holder
-- ARGV[1] holder
-- Returns 1, or 0 if this holder did not have it any more.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
return redis.call('DEL', KEYS[1])
