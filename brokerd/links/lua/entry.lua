-- Put in front of every script: what more than one of them needs. The numbers (DELIVER, FULL …) stand before it.
-- An entry of q is 1 byte type, 1 byte flags, 8 bytes expiry (ms, big-endian), then the body; its seq is f + index + 1.
local HEAD_BYTES, CHUNK = 10, 64
-- Redis gives a script at most some thousand values at once, and C code no more arguments: 1,000 is even and well below.
local function each(list, act)
  for from = 1, #list, 1000 do act(from, math.min(from + 999, #list)) end
end
local function number(text) return tonumber(text or 0) or 0 end
local function expiry(entry)
  local a, b, c, d, e, f, g, h = string.byte(entry, 3, HEAD_BYTES)
  return ((((((a * 256 + b) * 256 + c) * 256 + d) * 256 + e) * 256 + f) * 256 + g) * 256 + h
end
local function wants_receipt(entry)
  local kind, flags = string.byte(entry, 1, 2)
  return kind == DELIVER and flags % (2 * FLAG_RECEIPT) >= FLAG_RECEIPT
end
-- Calls see(seq, entry) for the seqs from..to in order, until it gives true. `floor` is f.
local function walk(key, floor, from, to, see)
  for seq = math.max(from, floor + 1), to, CHUNK do
    local last = math.min(seq + CHUNK - 1, to)
    local entries = redis.call('LRANGE', key, seq - floor - 1, last - floor - 1)
    for i = 1, #entries do
      if see(seq + i - 1, entries[i]) then return end
    end
  end
end
-- The lowest and the highest cursor of c, and how many devices it has.
local function cursors(key)
  local low, top, count = nil, 0, 0
  for _, text in ipairs(redis.call('HVALS', key)) do
    local cursor = tonumber(text)
    low, top, count = math.min(low or cursor, cursor), math.max(top, cursor), count + 1
  end
  return low or 0, top, count
end
-- Drops what lies up to `target`; gives the new floor and the bytes that are left (a guess, in proportion).
local function trim(key, floor, head, bytes, target)
  target = math.min(target, head)
  if target <= floor then return floor, bytes end
  redis.call('LTRIM', key, target - floor, -1)
  return target, math.floor(bytes * (head - target) / (head - floor))
end
