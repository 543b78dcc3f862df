-- The entries whose time is over, oldest first. Nothing is changed.
-- Left out: a message that every device acknowledged, and one whose DELIVERED receipt is owed and on its way (seq
-- behind d, up to the furthest cursor): burying it would lose the receipt. A message that one device had and whose
-- receipt was sent is given without its RECEIPT flag: its sender was told DELIVERED and is not told EXPIRED too.
-- KEYS  1 m  2 q  3 c
-- ARGV  1 now_ms  2 count_max  3 bytes_max
-- Gives seq, flags, entry, seq, flags, entry, …
local meta = redis.call('HMGET', KEYS[1], 'f', 'd')
local floor, done = number(meta[1]), number(meta[2])
local head = floor + redis.call('LLEN', KEYS[2])
local low, top = cursors(KEYS[3])
local now, count_max, bytes_max = number(ARGV[1]), number(ARGV[2]) * 3, number(ARGV[3])
local found, bytes = {}, 0
walk(KEYS[2], floor, floor + 1, head, function(seq, entry)
  local kind, flags = string.byte(entry, 1, 2)
  local at = expiry(entry)
  if kind == 0 or at == 0 or at > now then return false end
  if kind == DELIVER and seq <= low then return false end
  if wants_receipt(entry) then
    if seq > done and seq <= top then return false end
    if seq <= done then flags = flags - FLAG_RECEIPT end
  end
  found[#found + 1], found[#found + 2], found[#found + 3] = seq, flags, entry
  bytes = bytes + #entry
  return #found >= count_max or bytes >= bytes_max
end)
return found
