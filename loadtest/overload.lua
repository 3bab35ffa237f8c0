-- Offers money.js's requests at a constant rate by wrk, which costs a hundredth of k6's CPU, so that
-- the platform is overloaded and not the generator. Requests are due at fixed times, however long the
-- answers need; a request without a free connection within a second is dropped.
--
-- Environment: RATE (requests a second), SESSIONS (file of lines "session account").
-- Prints one JSON object as its last line: answers by status, dropped requests, and the number of
-- settled ones by their milliseconds.

local ffi = require('ffi')
ffi.cdef [[
    typedef struct { long seconds; long nanoseconds; } moment;
    int clock_gettime(int clock, moment *now);
]]

local MONOTONIC = 1
local PATIENCE = 1 -- seconds
local moment = ffi.new('moment')

local function now()
    ffi.C.clock_gettime(MONOTONIC, moment)
    return tonumber(moment.seconds) + tonumber(moment.nanoseconds) / 1e9
end

local interval = 1 / tonumber(os.getenv('RATE'))
local people, due, number = {}, 0, 0

-- The counts of this thread, which `done` reads.
answers, settled = {}, {}
dropped, without_retry_after = 0, 0

function init()
    for line in io.lines(os.getenv('SESSIONS')) do
        local session, account = line:match('(%S+) (%S+)')
        people[#people + 1] = { session = session, account = account }
    end
    math.randomseed(os.time())
    due = now()
end

-- wrk calls this for the milliseconds that a free connection should wait before it sends.
function delay()
    local moment_now = now()
    due = due + interval
    local late = moment_now - PATIENCE - due
    if late > 0 then
        local missed = math.ceil(late / interval)
        dropped, due = dropped + missed, due + missed * interval
    end
    return math.max(0, (due - moment_now) * 1000)
end

local function command(sender)
    if number % 3 ~= 2 then
        local path = number % 3 == 0 and '/api/deposit' or '/api/withdraw'
        return path, '{"accountNumber":"' .. sender.account .. '","amount":"1.00"}'
    end
    local receiver = people[math.random(#people)]
    while receiver == sender do receiver = people[math.random(#people)] end
    return '/api/transfer', '{"senderAccountNumber":"' .. sender.account
        .. '","receiverAccountNumber":"' .. receiver.account .. '","amount":"1.00"}'
end

-- The key has the time at which the request was sent, because wrk does not give it to `response`.
function request()
    number = number + 1
    local sender = people[math.random(#people)]
    local path, body = command(sender)
    return table.concat {
        'POST ', path, ' HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n',
        'Authorization: Bearer ', sender.session,
        '\r\nIdempotency-Key: ', string.format('%.6f', now()), '-', number,
        '\r\nContent-Length: ', #body, '\r\n\r\n', body,
    }
end

local function header(headers, name)
    return headers[name] or headers[name:lower()]
end

local function count(counts, key)
    counts[key] = (counts[key] or 0) + 1
end

function response(status, headers)
    count(answers, status)
    local key = header(headers, 'Idempotency-Key')
    if status == 200 and key then
        count(settled, math.floor((now() - tonumber(key:match('^[%d.]+'))) * 1000))
    elseif status == 503 and not header(headers, 'Retry-After') then
        without_retry_after = without_retry_after + 1
    end
end

local threads = {}
function setup(thread)
    threads[#threads + 1] = thread
end

local function object(counts)
    local members = {}
    for key, value in pairs(counts) do
        members[#members + 1] = string.format('"%s":%d', key, value)
    end
    return '{' .. table.concat(members, ',') .. '}'
end

function done(summary)
    local thread = threads[1] -- the only one, because each thread would have its own due times
    local errors = summary.errors
    print(string.format(
        '{"answers":%s,"settled_by_ms":%s,"dropped":%d,"without_retry_after":%d,"unanswered":%d}',
        object(thread:get('answers')), object(thread:get('settled')), thread:get('dropped'),
        thread:get('without_retry_after'),
        errors.connect + errors.read + errors.write + errors.timeout
    ))
end
