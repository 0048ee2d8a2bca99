"""What runs inside Redis, each script in one step, and the names of the keys.

A session is `created, seen, ends, revoked (-1: not) | length of the reason | reason | the rest, sealed`, a document
`version, first version, ends | its group's digest or zeros | sealed`; times and versions are doubles, little-endian.
A time to live is longer than the end by `MARGIN_S`, so that a server's clock decides nothing.
"""

from __future__ import annotations

from hashlib import sha1

MARGIN_S = 60
PREFIX = b"gw:"
EPOCH, SEQUENCE, STREAM, CHANNEL = b"gw:epoch", b"gw:seq", b"gw:changes", b"gw:news"
DEVICES, REVOKED_DEVICES, VERSION, PULSE = b"gw:devices", b"gw:revoked", b"gw:version", b"gw:pulse"
SESSION, SUBJECT, CERTIFICATES, ENROLMENT, USED, SECRETS, DOCUMENT, GROUP = (
    b"gw:s:", b"gw:p:", b"gw:c:", b"gw:e:", b"gw:u:", b"gw:k:", b"gw:d:", b"gw:g:",
)  # fmt: skip
KEPT_CHANGES, KEPT_CHANGES_S = 10_001, 3_600  # one more than promised: the last one read is looked at again

_LIVES = """
local function lives(ends, now, more)
  return string.format("%.0f", (math.max(ends - now, 0) + more) * 1000)
end
local function extend(key, ms)
  if redis.call("PTTL", key) < tonumber(ms) then redis.call("PEXPIRE", key, ms) end
end
"""
# A change goes when it is neither one of the last KEPT_CHANGES nor of the last KEPT_CHANGES_S.
_ANNOUNCE = f"""
local function announce(kind, name, now)
  local seq = redis.call("INCR", "gw:seq")
  redis.call("XADD", "gw:changes", string.format("%.0f-0", seq), "k", kind, "n", name, "t", now)
  if seq % 64 == 0 then
    local cut = nil
    for _, row in ipairs(redis.call("XRANGE", "gw:changes", "-", "(" .. string.format("%.0f-0", math.max(seq - {KEPT_CHANGES - 1}, 1)), "COUNT", 256)) do
      if tonumber(row[2][6]) >= tonumber(now) - {KEPT_CHANGES_S} then break end
      cut = row[1]
    end
    if cut then redis.call("XTRIM", "gw:changes", "MINID", string.format("%.0f-0", tonumber(string.match(cut, "^%d+")) + 1)) end
  end
  redis.call("PUBLISH", "gw:news", string.format("%.0f", seq))
  return seq
end
"""  # noqa: E501  (Lua)

# KEYS: session, subject's sessions; ARGV: value, id, now, seconds that more are kept, seconds a revocation is kept
PUT_SESSION = (
    _LIVES
    + """
local value, now = ARGV[1], tonumber(ARGV[3])
local created, seen, ends, revoked = struct.unpack("<dddd", value)
local old = redis.call("GET", KEYS[1])
if old then
  local last, over
  created, last, over, revoked = struct.unpack("<dddd", old)
  seen, ends = math.max(seen, last), math.max(ends, over)
  value = struct.pack("<dddd", created, seen, ends, revoked) .. string.sub(old, 33)
end
local more = tonumber(ARGV[4])
if revoked >= 0 then more = more + tonumber(ARGV[5]) end
redis.call("SET", KEYS[1], value, "PX", lives(ends, now, more))
redis.call("ZREMRANGEBYSCORE", KEYS[2], "-inf", ARGV[3])
redis.call("ZADD", KEYS[2], string.format("%.17g", ends), ARGV[2])
extend(KEYS[2], lives(ends, now, more))
return 1
"""
)

# KEYS: session; ARGV: revoked at, reason, now, seconds that it is kept, name of the change
REVOKE_SESSION = (
    _LIVES
    + _ANNOUNCE
    + """
local old = redis.call("GET", KEYS[1])
if old then
  local created, seen, ends, revoked, length, rest = struct.unpack("<ddddI4", old)
  if revoked < 0 then
    local value = struct.pack("<ddddI4", created, seen, ends, tonumber(ARGV[1]), #ARGV[2]) .. ARGV[2]
    value = value .. string.sub(old, rest + length)
    redis.call("SET", KEYS[1], value, "PX", lives(ends, tonumber(ARGV[3]), tonumber(ARGV[4])))
  end
end
return {old and 1 or 0, announce("session", ARGV[5], ARGV[3])}
"""
)

# ARGV: id, the present value or nothing, the new one (R first: revoked), revoked at or nothing, now, name of the change
WRITE_DEVICE = (
    _ANNOUNCE
    + """
if (redis.call("HGET", "gw:devices", ARGV[1]) or "") ~= ARGV[2] then return {0, 0} end
redis.call("HSET", "gw:devices", ARGV[1], ARGV[3])
if string.sub(ARGV[3], 1, 1) == "R" then redis.call("HSET", "gw:revoked", ARGV[1], ARGV[4]) end
return {1, announce("device", ARGV[6], ARGV[5])}
"""
)

# KEYS: the device's certificates; ARGV: member, end, now, seconds that more are kept
ADD_CERTIFICATE = (
    _LIVES
    + """
redis.call("ZREMRANGEBYSCORE", KEYS[1], "-inf", ARGV[3])
redis.call("ZADD", KEYS[1], ARGV[2], ARGV[1])
extend(KEYS[1], lives(tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])))
return 1
"""
)

# KEYS: the token; ARGV: what time it is
TAKE_ENROLMENT = """
local old = redis.call("GET", KEYS[1])
if not old or struct.unpack("<d", old) <= tonumber(ARGV[1]) then return false end
redis.call("DEL", KEYS[1])
return old
"""

# KEYS: what is used; ARGV: now, end, seconds that more are kept
FIRST_USE = (
    _LIVES
    + """
local old = redis.call("GET", KEYS[1])
if old and tonumber(old) > tonumber(ARGV[1]) then return 0 end
redis.call("SET", KEYS[1], ARGV[2], "PX", lives(tonumber(ARGV[2]), tonumber(ARGV[1]), tonumber(ARGV[3])))
return 1
"""
)

# KEYS: document, its group (or the document again); ARGV: digest of the document, of the group or "", end, sealed,
# version or -1, now, seconds that more are kept
PUT_DOCUMENT = (
    _LIVES
    + """
local now, ends, none = tonumber(ARGV[6]), tonumber(ARGV[3]), string.rep("\\0", 16)
local old = redis.call("GET", KEYS[1])
local there, first, group = 0, nil, none
if old then
  local version, began, over = struct.unpack("<ddd", old)
  group = string.sub(old, 25, 40)
  if over > now then there, first = version, began end
end
local wanted = tonumber(ARGV[5])
if wanted >= 0 and wanted ~= there then return 0 end
local version = redis.call("INCR", "gw:version")
first = first or version
local own = ARGV[2] == "" and none or ARGV[2]
if group ~= none and group ~= own then redis.call("ZREM", "gw:g:" .. group, ARGV[1]) end
local ms = lives(ends, now, tonumber(ARGV[7]))
redis.call("SET", KEYS[1], struct.pack("<ddd", version, first, ends) .. own .. ARGV[4], "PX", ms)
if own ~= none then
  redis.call("ZADD", KEYS[2], string.format("%.0f", first), ARGV[1])
  extend(KEYS[2], ms)
  for _, member in ipairs(redis.call("ZRANDMEMBER", KEYS[2], 4)) do
    if redis.call("EXISTS", "gw:d:" .. member) == 0 then redis.call("ZREM", KEYS[2], member) end
  end
end
return 1
"""
)

# KEYS: document; ARGV: its digest
TAKE_DOCUMENT = """
local old = redis.call("GET", KEYS[1])
if not old then return false end
redis.call("DEL", KEYS[1])
redis.call("ZREM", "gw:g:" .. string.sub(old, 25, 40), ARGV[1])
return old
"""

# KEYS: group; answers digests and documents in turn
LIST_DOCUMENTS = """
local found = {}
for _, member in ipairs(redis.call("ZRANGE", KEYS[1], 0, -1)) do
  local value = redis.call("GET", "gw:d:" .. member)
  if value then found[#found + 1] = member; found[#found + 1] = value end
end
return found
"""

# ARGV: kind, name, now
ANNOUNCE = (
    _ANNOUNCE
    + """
return {1, announce(ARGV[1], ARGV[2], ARGV[3])}
"""
)

# Answers the number and the name of the last change
LATEST = """
local row = redis.call("XREVRANGE", "gw:changes", "+", "-", "COUNT", 1)[1]
return {tonumber(redis.call("GET", "gw:seq") or "0"), row and row[2][4] or ""}
"""

# ARGV: after, its name or nothing, how many at most; answers nothing when the next change is forgotten, or was never
# made, or when change `after` is another one than it was
CHANGES = """
local latest, after = tonumber(redis.call("GET", "gw:seq") or "0"), tonumber(ARGV[1])
if latest < after then return false end
if ARGV[2] ~= "" then
  local last = string.format("%.0f-0", after)
  local row = redis.call("XRANGE", "gw:changes", last, last)[1]
  if not row or row[2][4] ~= ARGV[2] then return false end
end
if latest == after then return {} end
local wanted = string.format("%.0f-0", after + 1)
local rows = redis.call("XRANGE", "gw:changes", wanted, "+", "COUNT", ARGV[3])
if #rows == 0 or rows[1][1] ~= wanted then return false end
return rows
"""

ALL = (
    PUT_SESSION,
    REVOKE_SESSION,
    WRITE_DEVICE,
    ADD_CERTIFICATE,
    TAKE_ENROLMENT,
    FIRST_USE,
    PUT_DOCUMENT,
    TAKE_DOCUMENT,
    LIST_DOCUMENTS,
    ANNOUNCE,
    LATEST,
    CHANGES,
)
NAMES = {script: sha1(script.encode(), usedforsecurity=False).hexdigest() for script in ALL}
