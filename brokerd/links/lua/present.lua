-- A brokerd is there; those who did not say so for a while are forgotten. By the clock of Redis. Gives how many there are.
-- KEYS  1 brokers
-- ARGV  1 name of this process  2 ms it counts
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now_ms + ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now_ms)
return redis.call('ZCARD', KEYS[1])
