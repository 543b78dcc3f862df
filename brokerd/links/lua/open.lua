-- A device logs in: make the user and the device known, forget devices that were away for too long.
-- A device that is new begins at the floor: what is still kept for others is kept for it too.
-- KEYS  1 m  2 q  3 c  4 t  5 s
-- ARGV  1 device  2 fresh generation  3 now_ms  4 retention_ms
-- Gives cursor, head, generation, devices.
local device, now = ARGV[1], tonumber(ARGV[3])
if redis.call('HSETNX', KEYS[1], 'e', ARGV[3]) == 1 then
  redis.call('HSET', KEYS[1], 'g', ARGV[2], 'f', 0, 'b', 0, 'd', 0, 'w', 0)
end
local meta = redis.call('HMGET', KEYS[1], 'f', 'd', 'b', 'g')
local floor, done, bytes = number(meta[1]), number(meta[2]), number(meta[3])
local head = floor + redis.call('LLEN', KEYS[2])
local logins = redis.call('HGETALL', KEYS[4])
local forgotten = false
for i = 1, #logins, 2 do
  if logins[i] ~= device and now - tonumber(logins[i + 1]) > tonumber(ARGV[4]) then
    for key = 3, 5 do redis.call('HDEL', KEYS[key], logins[i]) end
    forgotten = true
  end
end
local low, _, devices = cursors(KEYS[3])
if forgotten and devices > 0 then
  floor, bytes = trim(KEYS[2], floor, head, bytes, math.min(low, done))
  redis.call('HSET', KEYS[1], 'f', floor, 'b', bytes)
end
local cursor = redis.call('HGET', KEYS[3], device)
if not cursor then
  cursor = floor
  devices = devices + 1
  redis.call('HSET', KEYS[3], device, floor)
end
redis.call('HSET', KEYS[4], device, ARGV[3])
return {tonumber(cursor), head, meta[4], devices}
