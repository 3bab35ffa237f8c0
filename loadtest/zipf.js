// Transfers whose senders and receivers follow Zipf's law: the account of rank r is chosen in
// proportion to 1 / r^ZIPF (default 1.1).

import { handleSummary, optionsFor, signEveryoneIn, transfer, users } from './lib.js';

const EXPONENT = Number(__ENV.ZIPF || 1.1);

const cumulative = [];
let total = 0;
for (let rank = 1; rank <= users.length; rank++) {
    total += 1 / Math.pow(rank, EXPONENT);
    cumulative.push(total);
}

export const options = optionsFor(1);
export { handleSummary };

export function setup() {
    return signEveryoneIn();
}

function draw() {
    const point = Math.random() * total;
    let low = 0;
    let high = cumulative.length - 1;
    while (low < high) {
        const middle = (low + high) >> 1;
        if (cumulative[middle] < point) low = middle + 1;
        else high = middle;
    }
    return low;
}

export default function (sessions) {
    const sender = draw();
    let receiver = draw();
    while (receiver === sender) receiver = draw();
    transfer(sessions[sender], users[sender].accounts[0], users[receiver].accounts[0], '0.01');
}
