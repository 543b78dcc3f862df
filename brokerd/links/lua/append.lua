-- Save the entries of one batch for one user, drop repeats, and look the user's seats up: all or nothing, in one step.
-- Everything is read before the first write, so that a key of the wrong type leaves nothing half done.
-- KEYS  1 m  2 q  3 c  4 dedupe of this month  5 dedupe of the month before  6 r
--       7 dedupe of the month to come
-- ARGV  1 count_max  2 bytes_max  3 earliest expiry of the entries (ms, 0 = never)  4 month  5 seconds a dedupe hash lives
--       6 marks_max  then for each entry: origin, cid, entry
--       (cid may be "cid prev": see brokerd/links/gaps.py)
-- Gives head, when the user must be swept (0 = as known), {device, seat, …}, and a result for each entry.
local FIRST = 7
local meta = redis.call('HMGET', KEYS[1], 'e', 'f', 'b', 'w', 'x', 'k')
local length = redis.call('LLEN', KEYS[2])
local reply = {0, 0, redis.call('HGETALL', KEYS[6])}
if not meta[1] then
  for i = FIRST, #ARGV, 3 do reply[#reply + 1] = NO_USER end
  return reply
end
local base = tonumber(meta[2]) + length
reply[1] = base
if #ARGV < FIRST then return reply end

-- a clock may step back over the end of a month, and two brokers' clocks differ: the month of a user never goes back
local this_month, month_before, month = KEYS[4], KEYS[5], ARGV[4]
if number(meta[6]) == tonumber(month) + 1 then this_month, month_before, month = KEYS[7], KEYS[4], meta[6] end

-- the highest cid taken from each origin; a key without a number counts as an origin of its own, with cid 1
local fields, cids, prevs, high, asked = {}, {}, {}, {}, {}
for i = FIRST, #ARGV, 3 do
  local field, cid = ARGV[i], tonumber(ARGV[i + 1])
  if not cid then
    local first, second = string.match(ARGV[i + 1], '^(%d+) (%d+)$')
    cid, prevs[i] = tonumber(first), tonumber(second)
  end
  if cid == 0 then field, cid = '=' .. field, 1 end
  fields[i], cids[i] = field, cid
  if not high[field] then
    high[field] = 0
    asked[#asked + 1] = field
  end
end
local function learn(key, names)
  local missing = {}
  each(names, function(from, to)
    local found = redis.call('HMGET', key, unpack(names, from, to))
    for i = 1, #found do
      if found[i] then high[names[from + i - 1]] = tonumber(found[i]) else missing[#missing + 1] = names[from + i - 1] end
    end
  end)
  return missing
end
local unknown = learn(this_month, asked)
local is_new_hash = #unknown > 0 and redis.call('EXISTS', this_month) == 0
if #unknown > 0 then learn(month_before, unknown) end

local lone -- whether the user has fewer than two devices; asked only when it matters
local function is_lone()
  if lone == nil then lone = redis.call('HLEN', KEYS[3]) < 2 end
  return lone
end
local function was_full(mark)
  return redis.call('HEXISTS', this_month, mark) == 1 or redis.call('HEXISTS', month_before, mark) == 1
end

-- the gaps below a mark, read when they are asked for: first, last, first, last, …
local gaps = {}
local function gaps_of(field)
  if not gaps[field] then
    local text = redis.call('HGET', this_month, '?' .. field) or redis.call('HGET', month_before, '?' .. field) or ''
    local list = {}
    for word in string.gmatch(text, '%d+') do list[#list + 1] = tonumber(word) end
    gaps[field] = list
  end
  return gaps[field]
end
local changed = {} -- fields whose gaps must be written
local function open_gap(field, prev)
  local list = gaps_of(field)
  list[#list + 1], list[#list + 2] = high[field] + 1, prev
  if #list > 2 * GAPS_MAX then table.remove(list, 1) table.remove(list, 1) end
  changed[field] = true
end
local function fill_gap(field, cid, prev)
  local old, new, is_open = gaps_of(field), {}, false
  for i = 1, #old, 2 do
    local first, last = old[i], old[i + 1]
    if first <= cid and cid <= last then
      is_open = true
      if first <= prev then new[#new + 1], new[#new + 2] = first, prev end
      first = cid + 1
    end
    if first <= last then new[#new + 1], new[#new + 2] = first, last end
  end
  if is_open then gaps[field], changed[field] = new, true end
  return is_open
end

local count_max, bytes_max, marks_max = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[6])
local bytes, receipts = tonumber(meta[3]), tonumber(meta[4])
local taken, moved, marks, marked, repeated = {}, {}, {}, {}, false
for i = FIRST, #ARGV, 3 do
  local field, cid, entry = fields[i], cids[i], ARGV[i + 2]
  local kind = string.byte(entry, 1)
  local result = REPEAT
  if (kind == SENT or kind == READ_SYNC) and is_lone() then
    result = REPEAT -- nothing is noted: there is nothing to protect
  elseif cid <= high[field] and not fill_gap(field, cid, prevs[i] or 0) then
    local mark = '!' .. field .. string.format('%.0f', cid)
    repeated = true
    if marked[mark] or was_full(mark) then result = FULL end
  else
    local times = kind == RECEIPT and 2 or 1
    if prevs[i] and prevs[i] > high[field] then open_gap(field, prevs[i]) end
    high[field] = math.max(high[field], cid)
    moved[field] = true
    if length + #taken >= count_max * times or bytes + #entry - HEAD_BYTES > bytes_max * times then
      result = FULL
      local mark = '!' .. field .. string.format('%.0f', cid)
      marked[mark] = true
      marks[#marks + 1], marks[#marks + 2] = mark, '1'
    else
      taken[#taken + 1] = entry
      bytes = bytes + #entry - HEAD_BYTES
      if wants_receipt(entry) then receipts = receipts + 1 end
      result = base + #taken
    end
  end
  reply[#reply + 1] = result
end

local sets = {}
for field in pairs(moved) do
  sets[#sets + 1], sets[#sets + 2] = field, high[field]
end
for field in pairs(changed) do
  local words = {}
  for _, cid in ipairs(gaps[field]) do words[#words + 1] = string.format('%.0f', cid) end
  sets[#sets + 1], sets[#sets + 2] = '?' .. field, table.concat(words, ' ')
end
-- a flood against a full queue may not fill the memory: beyond marks_max a refused entry's repeat is a plain REPEAT
if #marks > 0 and redis.call('HLEN', this_month) < marks_max then
  for i = 1, #marks do sets[#sets + 1] = marks[i] end
end
if #sets > 0 then
  each(sets, function(from, to) redis.call('HSET', this_month, unpack(sets, from, to)) end)
  if is_new_hash then
    redis.call('EXPIRE', this_month, ARGV[5])
    redis.call('HSET', KEYS[1], 'k', month)
  end
end
local sweep = number(meta[5])
if #taken > 0 then
  each(taken, function(from, to) redis.call('RPUSH', KEYS[2], unpack(taken, from, to)) end)
  reply[1] = base + #taken
  local expires = tonumber(ARGV[3])
  if expires > 0 and (sweep == 0 or expires < sweep) then
    redis.call('HSET', KEYS[1], 'b', bytes, 'w', receipts, 'x', expires)
    reply[2] = expires
  else
    redis.call('HSET', KEYS[1], 'b', bytes, 'w', receipts)
  end
end
-- whoever saved it the first time may have died before the schedule heard of it
if repeated and reply[2] == 0 then reply[2] = sweep end
return reply
