// Transfers in a closed loop, one after another on each connection, against any ledger with an HTTP
// API: `python -m microfin_loadtest compare` writes what to send, and how to see that it settled.
//
// Environment: PLAN (the file with the plan), CONNECTIONS, DURATION (such as 10s), HOT (1: all pay
// the first account), SUMMARY (the summary's file).

import http from 'k6/http';
import exec from 'k6/execution';
import { Counter, Trend } from 'k6/metrics';

const plan = JSON.parse(open(__ENV.PLAN));
const accounts = plan.accounts;
const isHot = __ENV.HOT === '1';
const wanted = plan.settled_text;

export const options = {
    scenarios: {
        // Each virtual user has a connection of its own.
        load: {
            executor: 'constant-vus',
            vus: Number(__ENV.CONNECTIONS),
            duration: __ENV.DURATION,
            gracefulStop: '30s',
        },
    },
    discardResponseBodies: wanted === '',
    summaryTrendStats: ['count', 'med', 'p(95)', 'p(99)', 'max'],
    systemTags: ['scenario'],
};

const settled = new Counter('settled');
const other = new Counter('other');
const latency = new Trend('latency', true);

// Returns a function that puts an iteration's values into a text, for <sender.number> and the like.
function filler(text) {
    const parts = text.split(/<((?:sender|receiver)\.\w+|unique)>/);
    for (let place = 1; place < parts.length; place += 2) parts[place] = parts[place].split('.');
    return (values) => {
        let filled = parts[0];
        for (let place = 1; place < parts.length; place += 2) {
            const [name, field] = parts[place];
            filled += (field === undefined ? values[name] : values[name][field]) + parts[place + 1];
        }
        return filled;
    };
}

const url = filler(plan.url);
const body = filler(plan.body);
const headers = Object.entries(plan.headers).map(([name, text]) => [name, filler(text)]);
const statuses = {};
for (const status of plan.settled_statuses) statuses[status] = true;
let hasComplained = false;

function randomIndex(length) {
    return Math.floor(Math.random() * length);
}

function complain(response) {
    if (hasComplained || exec.vu.idInTest !== 1) return;
    hasComplained = true;
    console.error(`an answer that is not settled: ${response.status} ${response.error} ${response.body}`);
}

export default function () {
    const first = isHot ? 1 : 0; // The owner of the hot account pays nobody.
    const sender = first + randomIndex(accounts.length - first);
    const receiver = isHot ? 0 : (sender + 1 + randomIndex(accounts.length - 1)) % accounts.length;
    const values = {
        sender: accounts[sender],
        receiver: accounts[receiver],
        unique: `${plan.run}-${exec.vu.idInTest}-${exec.vu.iterationInInstance}`,
    };
    const params = { headers: {} };
    for (const [name, fill] of headers) params.headers[name] = fill(values);
    const response = http.request(plan.method, url(values), body(values), params);
    if (statuses[response.status] && (wanted === '' || response.body.includes(wanted))) {
        settled.add(1);
        latency.add(response.timings.duration);
    } else {
        other.add(1);
        complain(response);
    }
}

export function handleSummary(data) {
    const summary = { milliseconds: data.state.testRunDurationMs, metrics: {} };
    for (const [name, metric] of Object.entries(data.metrics)) {
        summary.metrics[name] = metric.values;
    }
    return { [__ENV.SUMMARY]: JSON.stringify(summary) };
}
