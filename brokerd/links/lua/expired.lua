-- The entries whose time is over, oldest first. Those whose senders are to be told so are marked EXPIRING: an ack that
-- comes from now on finds that decided, and DELIVERED is not told as well.
-- Left out: a message that every device acknowledged, and one whose DELIVERED receipt is owed and on its way (seq
-- behind d, up to the furthest cursor): burying it would lose the receipt. Only what is told now is given with its
-- RECEIPT flag: not a message that one device had and whose sender was told so, nor a copy of what the user sent.
-- KEYS  1 m  2 q  3 c
-- ARGV  1 now_ms  2 count_max  3 bytes_max
-- Gives seq, flags, entry, seq, flags, entry, …
local meta = redis.call('HMGET', KEYS[1], 'f', 'd')
local floor, done = number(meta[1]), number(meta[2])
local head = floor + redis.call('LLEN', KEYS[2])
local low, top = cursors(KEYS[3])
local now, count_max, bytes_max = number(ARGV[1]), number(ARGV[2]) * 3, number(ARGV[3])
local found, marks, bytes = {}, {}, 0
walk(KEYS[2], floor, floor + 1, head, function(seq, entry)
  local kind, flags = string.byte(entry, 1, 2)
  local at = expiry(entry)
  if kind == 0 or at == 0 or at > now then return false end
  if kind == DELIVER and seq <= low then return false end
  local is_marked = flags % (2 * EXPIRING) >= EXPIRING
  if is_marked then flags = flags - EXPIRING end
  if wants_receipt(entry) and seq > done and seq <= top then return false end
  if flags % (2 * FLAG_RECEIPT) >= FLAG_RECEIPT then
    if kind ~= DELIVER or seq <= done then
      flags = flags - FLAG_RECEIPT
    elseif not is_marked then
      marks[#marks + 1] = {seq - floor - 1, string.char(kind, flags + EXPIRING) .. string.sub(entry, 3)}
    end
  end
  found[#found + 1], found[#found + 2], found[#found + 3] = seq, flags, entry
  bytes = bytes + #entry
  return #found >= count_max or bytes >= bytes_max
end)
for _, mark in ipairs(marks) do redis.call('LSET', KEYS[2], mark[1], mark[2]) end
return found
