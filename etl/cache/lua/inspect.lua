-- What keys hold now, each read in one step: it cannot change between its type and its value.
--
-- KEYS     contract keys, of any type
-- ARGV[i]  how many members KEYS[i] should have; ARGV[#KEYS + 1] how many more are returned to show some
-- Returns one flat array, as Redis sends nested ones piece by piece. For each key: 'none', or its type,
-- PTTL, size, how many values follow, and those. A hash far larger than it should be is returned
-- without its fields, and a list only as far.
local surplus = tonumber(ARGV[#KEYS + 1])
local found, n = {}, 0
for i, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key)['ok']
  found[n + 1] = kind
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
    found[n + 1], found[n + 2], found[n + 3] = redis.call('PTTL', key), size, #values
    n = n + 3
    for j = 1, #values do
      found[n + j] = values[j]
    end
    n = n + #values
  end
end
return found
