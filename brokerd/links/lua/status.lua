-- What chatctl shows of a user, at one moment.
-- KEYS  1 m  2 q  3 c  4 s  5 t
-- Gives nothing when there is no such user, else floor, head, bytes, {device, cursor, …}, {device, trouble, …},
-- {device, seen_ms, …}, generation.
local meta = redis.call('HMGET', KEYS[1], 'e', 'f', 'b', 'g')
if not meta[1] then return {} end
local floor = number(meta[2])
return {
  floor, floor + redis.call('LLEN', KEYS[2]), number(meta[3]), redis.call('HGETALL', KEYS[3]), redis.call('HGETALL', KEYS[4]),
  redis.call('HGETALL', KEYS[5]), meta[4],
}
