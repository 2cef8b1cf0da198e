-- Read the type, TTL and content of keys, each in one step: a key cannot change between its type and its value.
-- KEYS     contract keys, of any type
-- ARGV[i]  the expected number of members of KEYS[i]; ARGV[#KEYS + 1] the number of members returned beyond that
-- Returns one flat array, because Redis sends nested arrays slowly. For each key: 'none'; or its type, PTTL, size, the
-- number of values that follow, and the values. A hash with more members than that is returned without its fields, a
-- list only up to that number.
local surplus = tonumber(ARGV[#KEYS + 1])
local reply, n = {}, 0
for i, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key)['ok']
  reply[n + 1] = kind
  n = n + 1
  if kind ~= 'none' then
    local most, size, values = tonumber(ARGV[i]) + surplus, 0, {}
    if kind == 'hash' then
      size = redis.call('HLEN', key)
      if size <= most then
        values = redis.call('HGETALL', key)
      end
    elseif kind == 'list' then
      size = redis.call('LLEN', key)
      values = redis.call('LRANGE', key, 0, most - 1)
    end
    reply[n + 1], reply[n + 2], reply[n + 3] = redis.call('PTTL', key), size, #values
    n = n + 3
    for j = 1, #values do
      reply[n + j] = values[j]
    end
    n = n + #values
  end
end
return reply
