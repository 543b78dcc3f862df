-- Users are due for a sweep earlier than was known. A script, because a plain ZADD is refused when Redis is full, and the
-- appends that it is for are done.
-- KEYS  1 sweep
-- ARGV  at_ms, user, at_ms, user, …
for at = 1, #ARGV, 2 do redis.call('ZADD', KEYS[1], 'LT', ARGV[at], ARGV[at + 1]) end
return #ARGV / 2
