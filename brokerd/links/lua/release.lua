-- A session leaves its seat, if nobody else sits there by now. Gives 1 or 0.
-- KEYS  1 r
-- ARGV  1 device  2 "node session"
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
return redis.call('HDEL', KEYS[1], ARGV[1])
