-- What keys hold now, each read in one step: nobody can change it between its type and its value.
--
-- KEYS     contract keys, of any type
-- ARGV[i]  how many members KEYS[i] should have
-- Returns for each key nil where it is absent, else its type, PTTL, size and members. A hash much larger
-- than it should be is returned without its members, a list only as far.
local surplus = tonumber(ARGV[#KEYS + 1])
local found = {}
for i, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key)['ok']
  if kind == 'none' then
    found[i] = false
  else
    local most, size, members = tonumber(ARGV[i]) + surplus, 0, false
    if kind == 'hash' then
      size = redis.call('HLEN', key)
      if size <= most then
        members = redis.call('HGETALL', key)
      end
    elseif kind == 'list' then
      size = redis.call('LLEN', key)
      members = redis.call('LRANGE', key, 0, most - 1)
    end
    found[i] = {kind, redis.call('PTTL', key), size, members}
  end
end
return found
