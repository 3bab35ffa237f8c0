// Shared by all load scripts: prepared users, requests that are counted by endpoint and status, and
// the summary that `python -m microfin_loadtest` reads.
//
// Environment: API (base URL), RATE (iterations a second), DURATION (such as 60s), USERS (file of
// prepared users), SUMMARY (the summary's file), VUS and MAX_VUS (virtual users).

import http from 'k6/http';
import exec from 'k6/execution';
import { SharedArray } from 'k6/data';
import { Counter, Trend } from 'k6/metrics';

const API = __ENV.API;
const RATE = Number(__ENV.RATE || 100);
const DURATION = __ENV.DURATION || '60s';
const SLOTS = 60;

const ENDPOINTS = [
    'signIn', 'accountGeneration', 'deposit', 'withdraw', 'transfer',
    'showAccount', 'showStatement', 'listAccounts',
];
const OPERATIONS = ['accountGeneration', 'deposit', 'withdraw', 'transfer'];
// k6 reports 0 if no answer came.
const STATUSES = [0, 200, 201, 202, 400, 401, 403, 404, 409, 422, 429, 500, 502, 503, 504];
const CODES = [
    'insufficient_funds', 'account_not_found', 'account_frozen', 'account_closed', 'balance_limit',
    'expired', 'key_reused', 'quarantined', 'currency_mismatch', 'not_signed_in', 'sign_in_failed',
    'too_many_sign_ins', 'overloaded', 'unavailable', 'unknown', 'internal', 'not_settled', 'other',
];

// One metric for each number costs k6 less than one metric with tags, because k6 sorts every sample
// by its tags; metrics without samples are not in the summary.
const answers = {};
const latencies = {};
for (const endpoint of ENDPOINTS) {
    latencies[endpoint] = new Trend(`latency_${endpoint}`, true);
    answers[endpoint] = {};
    for (const status of STATUSES) {
        answers[endpoint][status] = new Counter(`answers_${endpoint}_${status}`);
    }
    answers[endpoint].other = new Counter(`answers_${endpoint}_999`);
}
const problems = {};
for (const code of CODES) problems[code] = new Counter(`problem_${code}`);
// The run is divided into SLOTS equal time slots: the plot's latency and throughput over time.
const slots = [];
for (let slot = 0; slot < SLOTS; slot++) slots.push(new Trend(`slot_${slot}`, true));
const slotMilliseconds = Math.max(milliseconds(DURATION) / SLOTS, 1);

export const users = new SharedArray('users', () => JSON.parse(open(__ENV.USERS)).users);

function milliseconds(duration) {
    const units = { ms: 1, s: 1000, m: 60000, h: 3600000 };
    let total = 0;
    for (const [, number, unit] of duration.matchAll(/([\d.]+)(ms|s|m|h)/g)) {
        total += Number(number) * units[unit];
    }
    return total;
}

// Returns the options of a script whose iterations each send `requests` requests.
export function optionsFor(requests) {
    const preAllocatedVUs = Number(__ENV.VUS || Math.max(50, Math.ceil(RATE * requests * 0.4)));
    return {
        scenarios: {
            load: {
                executor: 'constant-arrival-rate',
                rate: RATE,
                timeUnit: '1s',
                duration: DURATION,
                preAllocatedVUs: preAllocatedVUs,
                maxVUs: Number(__ENV.MAX_VUS || preAllocatedVUs * 5),
                gracefulStop: '30s',
            },
        },
        setupTimeout: '5m',
        summaryTrendStats: ['count', 'med', 'p(95)', 'p(99)', 'max'],
        systemTags: ['scenario'],
    };
}

export function randomIndex(length) {
    return Math.floor(Math.random() * length);
}

export function randomUser() {
    return users[randomIndex(users.length)];
}

// Returns an index other than this one, so that no user pays himself.
export function otherIndex(index, length) {
    return (index + 1 + randomIndex(length - 1)) % length;
}

const unsigned = { headers: { 'Content-Type': 'application/json' } };
let signed = { session: '', params: unsigned };

// All requests of an iteration are by one user: they share the first one's parameters.
function paramsOf(session) {
    if (signed.session !== session) {
        const headers = { ...unsigned.headers, Authorization: `Bearer ${session}` };
        signed = { session: session, params: { headers: headers } };
    }
    return signed.params;
}

function codeOf(response) {
    let code = 'other';
    try {
        code = response.json('code') || 'other';
    } catch (_) { /* no JSON: other */ }
    return code in problems ? code : 'other';
}

function count(endpoint, response) {
    const status = response.status;
    (answers[endpoint][status] || answers[endpoint].other).add(1);
    if (status >= 400) {
        problems[codeOf(response)].add(1);
    } else if (status === 200 && OPERATIONS.includes(endpoint)
               && !response.body.includes('"status":"settled"')) {
        problems.not_settled.add(1);
    }
    if (status > 0 && status < 500) {
        const duration = response.timings.duration;
        latencies[endpoint].add(duration);
        const elapsed = Date.now() - exec.scenario.startTime;
        slots[Math.min(Math.floor(elapsed / slotMilliseconds), SLOTS - 1)].add(duration);
    }
    return response;
}

function post(endpoint, session, body) {
    return count(endpoint, http.post(`${API}/api/${endpoint}`, body, paramsOf(session)));
}

function get(endpoint, session, path) {
    return count(endpoint, http.get(`${API}${path}`, paramsOf(session)));
}

// Returns the session, or '' if there is none.
export function signIn(user) {
    const body = JSON.stringify({ email: user.email, password: user.password });
    const response = count('signIn', http.post(`${API}/api/signin`, body, unsigned));
    return response.status === 200 ? response.json('sessionId') : '';
}

// Returns the account's number, or '' if the account was not opened (yet).
export function generateAccount(session) {
    const response = post('accountGeneration', session, '{}');
    return response.status === 200 ? response.json('accountNumber') : '';
}

export function deposit(session, account, amount) {
    return post('deposit', session, JSON.stringify({ accountNumber: account, amount: amount }));
}

export function withdraw(session, account, amount) {
    return post('withdraw', session, JSON.stringify({ accountNumber: account, amount: amount }));
}

export function transfer(session, sender, receiver, amount) {
    return post('transfer', session, JSON.stringify({
        senderAccountNumber: sender, receiverAccountNumber: receiver, amount: amount,
    }));
}

export function showAccount(session, account) {
    return get('showAccount', session, `/api/accounts/${account}`);
}

export function showStatement(session, account) {
    return get('showStatement', session, `/api/accounts/${account}/entries?limit=20`);
}

export function listAccounts(session) {
    return get('listAccounts', session, '/api/accounts');
}

// For `setup`: signs in every prepared user without counting, and returns their sessions in order.
export function signEveryoneIn() {
    const sessions = [];
    for (let first = 0; first < users.length; first += 10) {
        const some = users.slice(first, first + 10);
        const responses = http.batch(some.map((user) => ({
            method: 'POST',
            url: `${API}/api/signin`,
            body: JSON.stringify({ email: user.email, password: user.password }),
            params: unsigned,
        })));
        for (const response of responses) {
            if (response.status !== 200) {
                exec.test.abort(`A prepared user could not sign in: ${response.status} ${response.body}`);
            }
            sessions.push(response.json('sessionId'));
        }
    }
    return sessions;
}

export function handleSummary(data) {
    const summary = { ended: Date.now(), slots: SLOTS, metrics: {} };
    for (const [name, metric] of Object.entries(data.metrics)) {
        summary.metrics[name] = metric.values;
    }
    return { [__ENV.SUMMARY]: JSON.stringify(summary) };
}
