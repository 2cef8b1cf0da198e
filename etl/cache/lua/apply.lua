-- Change contract keys as the newest of the documents that claim them say.
-- KEYS    for each contract key: its owner register {<key>}:owner (string, expires); and the key itself
-- ARGV[1] read moment: this server's clock in microseconds, from before the documents were read
-- ARGV[2] deadline: microseconds after which a read is too old to be written
-- ARGV    then for each contract key: the number of changes, in ascending order of their documents; for each change
--         "<timestamp> <document>" and a kind:
--           "h" "l" "0"  claim: the key is a hash, a list, or absent; then TTL in seconds (0: none), a count, the members
--           "+"          claim whose content is not in the call
--           "~"          claim below the document that holds the key
--           "!"          placeholder for older claims that are left out of the call
--           "-"          release
-- Returns 0 if the read is too old. Else a flat array with three values for each key that needs attention: its number
-- in this call; the blocker, or "!"; 1 if the key holds the content of the blocker, else 0.
--   blocker: the key was not changed, and the caller must read this document too ("": only those of the changes)
--   "!": the key was changed and its newest claim released it, so a document whose line was dropped may claim it next
--
-- The owner register has one line per document, the newest claim first:
--   "+<written_at> <timestamp> <document>"  claims the key
--   "-<written_at> <timestamp> <document>"  has released it; kept while an older read of it may still arrive
--   "!0 <timestamp> <document>"             the newest of the lines that were dropped
--
-- A line is replaced only by a read that is younger than the line, or by one that says the same. The newest claim
-- decides the content of the key. If the content of that claim is not in this call, nothing is changed: the caller reads
-- its document and sends the content in the next call, so that no reader finds the key absent. A live key is never
-- deleted and filled again: while a cluster slot migrates, that would lose the key.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local read_at, deadline = tonumber(ARGV[1]), tonumber(ARGV[2])
if read_at > now or now - read_at > deadline then
  return 0
end
local MOST_LINES, PIECE = 8, 4000
local call = redis.call
local stamp, margin = string.format('%.0f', now), math.floor(deadline / 500)  -- twice the deadline, in milliseconds

-- Whether line a is newer than line b; nil if only MongoDB's order of values decides.
local function is_newer(a, b)
  if a.place and b.place then
    return a.place > b.place
  end
  local ms, other_ms = tonumber(a.timestamp), tonumber(b.timestamp)
  if ms and other_ms and ms ~= other_ms then
    return ms > other_ms
  elseif a.timestamp ~= b.timestamp then
    local class, other_class = a.timestamp:sub(1, 1), b.timestamp:sub(1, 1)
    if not ms and class ~= other_class then
      return class == '>'
    elseif not other_ms and class ~= other_class then
      return other_class == '<'
    end
    return nil
  end
  local source, id = a.document:match('^(%S+) {"$oid": "(%x+)"}$')
  local other_source, other_id = b.document:match('^(%S+) {"$oid": "(%x+)"}$')
  if id and source == other_source then
    for start = 1, 24, 12 do  -- as numbers: Lua compares strings by the locale of the server
      local part = tonumber(id:sub(start, start + 11), 16)
      local other_part = tonumber(other_id:sub(start, start + 11), 16)
      if part ~= other_part then
        return part > other_part
      end
    end
  end
  return nil
end

-- The newest claim; or nil and a line whose order only MongoDB can decide. The claim that held the key is newer than
-- all claims that are not in the call, unless its timestamp went back.
local function newest(lines, holder)
  local top
  for _, line in ipairs(lines) do
    if holder and line.document == holder.document and line.state == '+'
        and (line.timestamp == holder.timestamp or is_newer(line, holder)) then
      top = line
    end
  end
  local held = top ~= nil
  for _, line in ipairs(lines) do
    if line.state == '+' and line ~= top and not (held and not line.place) then
      local newer = top == nil or is_newer(line, top)
      if newer == nil and held and line.kind == '~' then  -- the holder cannot be read: it keeps the key
        newer = false
      end
      if newer == nil then
        return nil, line.place and top or line
      elseif newer then
        top = line
      end
    end
  end
  return top
end

local function succeeded(reply)
  return type(reply) ~= 'table' or not reply.err
end

local function fill_hash(key, first, last, is_new)
  local added = redis.pcall('HSET', key, unpack(ARGV, first, math.min(last, first + PIECE - 1)))
  if not succeeded(added) then  -- the key has another type
    call('UNLINK', key)
    added = call('HSET', key, unpack(ARGV, first, math.min(last, first + PIECE - 1)))
  end
  for start = first + PIECE, last, PIECE do
    added = added + call('HSET', key, unpack(ARGV, start, math.min(last, start + PIECE - 1)))
  end
  local fields = (last - first + 1) / 2
  if not (is_new and added == fields) and call('HLEN', key) > fields then
    local kept = {}
    for i = first, last, 2 do
      kept[ARGV[i]] = true
    end
    for _, field in ipairs(call('HKEYS', key)) do
      if not kept[field] then
        call('HDEL', key, field)
      end
    end
  end
end

local function fill_list(key, first, last)
  local length = redis.pcall('RPUSH', key, unpack(ARGV, first, math.min(last, first + PIECE - 1)))
  if not succeeded(length) then  -- the key has another type
    call('UNLINK', key)
    length = call('RPUSH', key, unpack(ARGV, first, math.min(last, first + PIECE - 1)))
  end
  for start = first + PIECE, last, PIECE do
    length = call('RPUSH', key, unpack(ARGV, start, math.min(last, start + PIECE - 1)))
  end
  local members = last - first + 1
  if length > members then
    call('LTRIM', key, length - members, -1)
  end
end

local function fill(key, kind, life, first, last, is_new)
  if kind == 'h' then
    fill_hash(key, first, last, is_new)
  elseif kind == 'l' then
    fill_list(key, first, last)
  else
    call('UNLINK', key)
    return
  end
  if life == '0' then
    call('PERSIST', key)
  else
    call('EXPIRE', key, life)
  end
end

-- The changes of one key that start at ARGV[i]; the index after them; and the oldest claim, if older ones are left out.
local function parse(i)
  local changes, count, left_out, oldest = {}, tonumber(ARGV[i]), false, nil
  i = i + 1
  for place = 1, count do
    local kind = ARGV[i + 1]
    local timestamp, document = ARGV[i]:match('^(%S+) (.+)$')
    local change = {place = place, document = document, timestamp = timestamp, kind = kind}
    i = i + 2
    change.state = kind == '-' and '-' or '+'
    if kind == 'h' or kind == 'l' or kind == '0' then
      change.life, change.first = ARGV[i], i + 2
      change.last = i + 1 + tonumber(ARGV[i + 1])
      i = change.last + 1
    end
    if kind == '!' then
      left_out = true
    else
      changes[#changes + 1] = change
      oldest = oldest or change.state == '+' and {timestamp = timestamp, document = document} or nil
    end
  end
  return changes, i, left_out and oldest or nil
end

-- The newer of two lines that were dropped; each may be nil.
local function newer_dropped(a, b)
  return (a == nil or b and is_newer(b, a)) and b or a
end

-- The lines after the changes, the newest line that was dropped, and the line that held the key before; nil if a change
-- was read before its line was written.
local function merge(stored, changes, overflow)
  local lines, change_of, holder = {}, {}, nil
  for _, change in ipairs(changes) do
    change_of[change.document] = change
    change.written_at = stamp
  end
  for state, written_at, timestamp, document in stored:gmatch('([-+!])(%d+) (%S+) ([^\n]+)') do
    local change, wrote = change_of[document], tonumber(written_at)
    if state == '+' and holder == nil then
      holder = {timestamp = timestamp, document = document}
    end
    if state == '!' then
      overflow = newer_dropped(overflow, {timestamp = timestamp, document = document})
    elseif change == nil then
      if state == '+' or wrote + deadline >= now then  -- old releases: no older read can arrive
        lines[#lines + 1] = {state = state, written_at = written_at, timestamp = timestamp, document = document}
      end
    elseif not (state == '+' and change.state == '+' and change.timestamp == timestamp)
        and read_at <= wrote and wrote <= now and not (state == '-' and change.state == '-') then
      return nil
    end
  end
  for _, change in ipairs(changes) do
    lines[#lines + 1] = change
  end
  return lines, overflow, holder
end

-- Without the oldest live lines where they are too many; and the newest that was ever dropped.
local function capped(lines, top, overflow)
  local live = 0
  for _, line in ipairs(lines) do
    live = live + (line.state == '+' and 1 or 0)
  end
  while live > MOST_LINES do
    local oldest
    for i, line in ipairs(lines) do
      if line.state == '+' and line ~= top and (oldest == nil or is_newer(lines[oldest], line)) then
        oldest = i
      end
    end
    local dropped = table.remove(lines, oldest)
    live = live - 1
    overflow = newer_dropped(overflow, {timestamp = dropped.timestamp, document = dropped.document})
  end
  return overflow
end

local function keep(owner, lines, top, overflow, ...)
  local texts = {}
  for _, line in ipairs(lines) do
    local text = line.state .. line.written_at .. ' ' .. line.timestamp .. ' ' .. line.document
    table.insert(texts, line == top and 1 or #texts + 1, text)
  end
  if overflow then
    texts[#texts + 1] = '!0 ' .. overflow.timestamp .. ' ' .. overflow.document
  end
  call('SET', owner, table.concat(texts, '\n'), ...)
end

-- Change one key. Returns nil, or "!" if a dropped line may belong to its next claimant; if the key cannot be changed, the blocker, and 1 if the
-- key holds the content of the blocker.
local function apply(owner, key, stored, changes, left_out)
  local lines, overflow, held = merge(stored, changes, left_out)
  if lines == nil then
    return '', 0
  end
  local holder = held and held.document
  local top, unplaced = newest(lines, held)
  if unplaced then
    return unplaced.document, unplaced.document == holder and 1 or 0
  elseif top == nil then
    if held then
      call('UNLINK', key)
    end
    keep(owner, lines, nil, nil, 'PX', margin)
    return overflow and '!' or nil, 0
  elseif top.place and not top.life then
    return top.document, 0
  elseif top.place then
    fill(key, top.kind, top.life, top.first, top.last, false)
    local is_doubtful = overflow and top.document ~= overflow.document and not is_newer(top, overflow)
    overflow = capped(lines, top, overflow)
    if top.life == '0' then
      keep(owner, lines, top, overflow)
    else
      keep(owner, lines, top, overflow, 'PX', top.life * 1000 + margin)
    end
    return is_doubtful and '!' or nil, 0
  end
  -- The content of the newest claim is not in the call: only claims below it and releases may be recorded.
  for _, change in ipairs(changes) do
    if top.document ~= holder or change.kind == '+' or change.life then
      return top.document, top.document == holder and 1 or 0
    end
  end
  overflow = capped(lines, top, overflow)
  local left = call('PTTL', owner)
  if left < 0 then
    keep(owner, lines, top, overflow)
  else
    keep(owner, lines, top, overflow, 'PX', math.max(left, margin))
  end
  return nil
end

local owner_lives = {}  -- by TTL of the key: formatting a number is the slowest step here
local answers, i = {}, 3
local live = '+' .. stamp .. ' '
for k = 1, #KEYS, 2 do
  local owner, key, kind, is_new = KEYS[k], KEYS[k + 1], ARGV[i + 2], false
  -- Fast path, usual in a backfill: the key has no register yet, so there are no lines to parse.
  if ARGV[i] == '1' and kind ~= '-' and kind ~= '~' then
    local life = ARGV[i + 3]
    if life == '0' then
      is_new = call('SET', owner, live .. ARGV[i + 1], 'NX')
    else
      owner_lives[life] = owner_lives[life] or string.format('%.0f', life * 1000 + margin)
      is_new = call('SET', owner, live .. ARGV[i + 1], 'PX', owner_lives[life], 'NX')
    end
    if is_new then
      local last = i + 4 + ARGV[i + 4]
      fill(key, kind, life, i + 5, last, true)
      i = last + 1
    end
  end
  if not is_new then
    local changes, left_out
    changes, i, left_out = parse(i)
    local blocker, holds = apply(owner, key, call('MGET', owner)[1] or '', changes, left_out)
    if blocker then
      answers[#answers + 1] = (k + 1) / 2
      answers[#answers + 1] = blocker
      answers[#answers + 1] = holds
    end
  end
end
return answers
