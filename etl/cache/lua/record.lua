-- Record the versions of documents that are about to be written, and return the keys that each of them releases.
-- KEYS    etl:record:<document>  string, expires: "<done 0|1><written_at> <timestamp> <claims>"
-- ARGV[1] read moment: this server's clock in microseconds, from before the documents were read
-- ARGV[2] deadline: microseconds after which a read is too old to be written
-- ARGV[3] "1" if the documents were read by _id from a primary that was still one afterwards
-- ARGV    then for each document: the TTL of its record in milliseconds; and one text, the statement: its timestamp
--         ("gone" if it does not exist) and the keys that it claims, each followed by a space
-- Returns 0 if the read is too old. Else the time of recording in microseconds, which `done.lua` expects; and for each
-- document: 2 (read it again), 1 (it is done), 0 (write it), or the keys that it releases, separated by spaces.
--
-- A new statement is refused if the document was read before its record was last written: another writer has read it
-- later. A version older than the recorded one must be confirmed by a read from the primary: a page may come from a
-- primary that was deposed. The record keeps the union of old and new claims until `done.lua` has removed the old ones,
-- so a writer that dies in between leaves no key behind.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local read_at = tonumber(ARGV[1])
if read_at > now or now - read_at > tonumber(ARGV[2]) then
  return 0
end
local confirmed = ARGV[3] == '1'

-- Timestamps other than dates sort before ("<…") or after (">…") all dates; two of the same class are not compared.
local function is_older(timestamp, recorded)
  local ms, recorded_ms = tonumber(timestamp), tonumber(recorded)
  if ms and recorded_ms then
    return ms < recorded_ms
  end
  return not (ms and recorded:sub(1, 1) == '<') and not (recorded_ms and timestamp:sub(1, 1) == '>')
end

local function words(text)
  local list = {}
  for word in text:gmatch('%S+') do
    list[#list + 1] = word
  end
  return list
end

local stamp = string.format('%.0f ', now)
local answers = {string.format('%.0f', now)}
local call = redis.call
for i, key in ipairs(KEYS) do
  local statement, life = ARGV[2 * i + 3], ARGV[2 * i + 2]
  local answer, value = 0, '0' .. stamp .. statement
  -- Fast path, usual in a backfill: the document has no record yet.
  if not call('SET', key, value, 'PX', life, 'NX') then
    local record = call('MGET', key)[1] or value  -- nil: a key of another type, which is replaced
    local timestamp, claims = statement:match('^(%S+) (.*)$')
    local done, written_at, recorded, old_claims = record:match('^([01])(%d+) (%S+) (.*)$')
    local same = timestamp == recorded
    if same and claims == old_claims then
      answer = tonumber(done)
      value = done .. stamp .. statement
    elseif not same and (read_at <= tonumber(written_at) and tonumber(written_at) <= now
        or not confirmed and is_older(timestamp, recorded)) then
      answer = 2
    else
      local claimed, released = {}, {}
      for _, claim in ipairs(words(claims)) do
        claimed[claim] = true
      end
      for _, claim in ipairs(words(old_claims)) do
        if not claimed[claim] then
          released[#released + 1] = claim
        end
      end
      if #released > 0 then
        answer = table.concat(released, ' ')
        value = value .. answer .. ' '
      end
    end
    if answer ~= 2 then
      call('SET', key, value, 'PX', life)
    end
  end
  answers[i + 1] = answer
end
return answers
