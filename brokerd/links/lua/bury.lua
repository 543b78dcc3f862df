-- Turn entries into tombstones, drop the tombstones at the front, and find when the user must be swept next.
-- Reads all that is kept: some ms for a full queue, once a sweep.
-- KEYS  1 m  2 q  3 c
-- ARGV  1 reason  then the seqs
-- Gives that time (ms), 0 = nothing can expire.
local meta = redis.call('HMGET', KEYS[1], 'f', 'd', 'w', 'b')
if not meta[1] then return 0 end
local floor, done, receipts, bytes = number(meta[1]), number(meta[2]), number(meta[3]), number(meta[4])
local head = floor + redis.call('LLEN', KEYS[2])
local tombstone = string.rep('\0', HEAD_BYTES) .. ARGV[1]
for i = 2, #ARGV do
  local seq = tonumber(ARGV[i])
  local entry = seq > floor and seq <= head and redis.call('LINDEX', KEYS[2], seq - floor - 1)
  if entry and string.byte(entry, 1) ~= 0 then
    redis.call('LSET', KEYS[2], seq - floor - 1, tombstone)
    bytes = bytes - #entry + HEAD_BYTES
    if seq > done and wants_receipt(entry) then receipts = receipts - 1 end
  end
end
local low = cursors(KEYS[3])
local front, next_ms = nil, 0
walk(KEYS[2], floor, floor + 1, head, function(seq, entry)
  local kind = string.byte(entry, 1)
  if kind == 0 then return false end
  front = front or seq
  local at = expiry(entry)
  if at > 0 and (next_ms == 0 or at < next_ms) and not (kind == DELIVER and seq <= low) then next_ms = at end
end)
floor, bytes = trim(KEYS[2], floor, head, math.max(bytes, 0), (front or head + 1) - 1)
redis.call('HSET', KEYS[1], 'f', floor, 'd', math.max(done, floor), 'w', math.max(receipts, 0), 'b', bytes, 'x', next_ms)
return next_ms
