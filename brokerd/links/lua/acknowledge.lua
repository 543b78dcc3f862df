-- One device processed all up to a seq: move its cursor, say whose senders must be told, trim what all have processed.
-- Entries that a device has for the first time and that want a receipt are owed: as long as any are, d stays before
-- them, and nothing behind d is trimmed. The caller posts the receipts and comes again with `settled`.
-- KEYS  1 m  2 q  3 c  4 t
-- ARGV  1 device ("" = none: only what is owed)  2 seq  3 settled  4 owed_max  5 owed bytes_max  6 now_ms
--       7 after how many ms a device counts as seen again
--       8 generation of the queue in which 2 and 3 count ("" = not said)
-- Gives generation, seq, entry, seq, entry, …; nothing when nothing is owed.
local device = ARGV[1]
local was = device ~= '' and redis.call('HGET', KEYS[3], device)
if device ~= '' and not was then return {} end
local meta = redis.call('HMGET', KEYS[1], 'f', 'd', 'w', 'b', 'g')
if not meta[1] or (ARGV[8] ~= '' and ARGV[8] ~= meta[5]) then return {} end
local floor, done, receipts, bytes = number(meta[1]), number(meta[2]), number(meta[3]), number(meta[4])
local head = floor + redis.call('LLEN', KEYS[2])
local seen = device ~= '' and number(redis.call('HGET', KEYS[4], device))

if was and math.min(number(ARGV[2]), head) > tonumber(was) then
  redis.call('HSET', KEYS[3], device, math.min(number(ARGV[2]), head))
end
-- a session may live for longer than the retention: an ack shows its device as well as a login does
if seen and number(ARGV[6]) - seen > number(ARGV[7]) then redis.call('HSET', KEYS[4], device, ARGV[6]) end
local low, top, devices = cursors(KEYS[3])

local settled = math.min(number(ARGV[3]), top)
if settled > done then
  if receipts > 0 then
    walk(KEYS[2], floor, done + 1, settled, function(_, entry)
      if wants_receipt(entry) then receipts = receipts - 1 end
    end)
  end
  done = settled
end
local owed, owed_bytes = {}, 0
if top > done and receipts > 0 then
  local owed_max, bytes_max = number(ARGV[4]) * 2, number(ARGV[5])
  walk(KEYS[2], floor, done + 1, top, function(seq, entry)
    if not wants_receipt(entry) then return false end
    owed[#owed + 1] = seq
    owed[#owed + 1] = entry
    owed_bytes = owed_bytes + #entry
    return #owed >= owed_max or owed_bytes >= bytes_max
  end)
end
if #owed == 0 then done = math.max(done, top) end
local kept_from = floor
if devices > 0 then floor, bytes = trim(KEYS[2], floor, head, bytes, math.min(low, done)) end
if done ~= number(meta[2]) or floor ~= kept_from then
  redis.call('HSET', KEYS[1], 'f', floor, 'd', done, 'w', math.max(receipts, 0), 'b', bytes)
end
if #owed > 0 then table.insert(owed, 1, meta[5] or '') end
return owed
