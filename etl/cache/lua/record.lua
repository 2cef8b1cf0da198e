-- Record the versions of documents that are about to be written, and say what each of them gives up.
-- KEYS    etl:record:<document>  string, expires: "<done 0|1><written_at> <timestamp> <claims>"
-- ARGV[1] when the documents were read: microseconds of this server's clock, taken before the read
-- ARGV[2] microseconds after which a read is too old to be written
-- ARGV[3] "1" if the documents were read by _id from a primary that was still one afterwards
-- ARGV    then for each document: milliseconds the record lives; and in one text its timestamp ("gone" if there is
--         none) and the keys that it claims, each followed by a space
-- Returns 0 if the read is too old. Else when this was recorded, in microseconds, as `done.lua` takes it; and then for
-- each document: 2 read it again, 1 it is done, 0 go on, or the keys that it gives up, with spaces between them.
--
-- A document that says something new is refused if it was read before the record was last written: another
-- writer has read it later. A read that goes back in time is confirmed first: a page may come from a primary
-- that was deposed. The record keeps the union of old and new claims until `done.lua` has struck the old
-- ones, so a writer that dies in between leaves no key behind.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local read_at = tonumber(ARGV[1])
if read_at > now or now - read_at > tonumber(ARGV[2]) then
  return 0
end
local confirmed = ARGV[3] == '1'

-- Timestamps that are no dates sort before ("<…") or after (">…") all dates; two of one class are not compared here.
local function is_older(timestamp, recorded)
  local ms, recorded_ms = tonumber(timestamp), tonumber(recorded)
  if ms and recorded_ms then
    return ms < recorded_ms
  end
  return not (ms and recorded:sub(1, 1) == '<') and not (recorded_ms and timestamp:sub(1, 1) == '>')
end

local function words(text)
  local found = {}
  for word in text:gmatch('%S+') do
    found[#found + 1] = word
  end
  return found
end

local stamp = string.format('%.0f ', now)
local answers = {string.format('%.0f', now)}
local call = redis.call
for i, key in ipairs(KEYS) do
  local said, life = ARGV[2 * i + 3], ARGV[2 * i + 2]
  local answer, value = 0, '0' .. stamp .. said
  -- Nothing is known of the document, as nearly always in a backfill: one command.
  if not call('SET', key, value, 'PX', life, 'NX') then
    local record = call('MGET', key)[1] or value  -- replaces a key of another type
    local timestamp, claims = said:match('^(%S+) (.*)$')
    local done, written_at, recorded, old = record:match('^([01])(%d+) (%S+) (.*)$')
    local same = timestamp == recorded
    if same and claims == old then
      answer = tonumber(done)
      value = done .. stamp .. said
    elseif not same and (read_at <= tonumber(written_at) and tonumber(written_at) <= now
        or not confirmed and is_older(timestamp, recorded)) then
      answer = 2
    else
      local claimed, given_up = {}, {}
      for _, claim in ipairs(words(claims)) do
        claimed[claim] = true
      end
      for _, claim in ipairs(words(old)) do
        if not claimed[claim] then
          given_up[#given_up + 1] = claim
        end
      end
      if #given_up > 0 then
        answer = table.concat(given_up, ' ')
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
