-- A session takes the seat of its device. Gives the seat it replaced, nothing when there was none or it was this one.
-- With a former seat: it takes only its own place back. Gives the seat that stands in the way, nothing when it was done.
-- KEYS  1 r
-- ARGV  1 device  2 "node session"  3 the former "node session" (may be left out)
local old, former = redis.call('HGET', KEYS[1], ARGV[1]), ARGV[3]
if old == ARGV[2] then return false end
if former and old and old ~= former then return old end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return not former and old
