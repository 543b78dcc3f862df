-- A session takes the seat of its device. Gives the seat it replaced, nothing when there was none or it was this one.
-- KEYS  1 r
-- ARGV  1 device  2 "node session"
local old = redis.call('HGET', KEYS[1], ARGV[1])
if old == ARGV[2] then return false end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return old
