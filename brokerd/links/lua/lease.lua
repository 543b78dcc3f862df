-- A node says that it lives for another while. A script, because a plain SET is refused when Redis is full.
-- KEYS  1 n
-- ARGV  1 ttl_ms
-- Gives whether its lease still stood.
local stood = redis.call('EXISTS', KEYS[1])
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
return stood
