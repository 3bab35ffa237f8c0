// Every transfer pays one account. With HOT=0.5 every second transfer pays it. With HOT=0 none does,
// and receivers are uniform: the hot account is compared with that.

import {
    handleSummary, optionsFor, otherIndex, randomIndex, signEveryoneIn, transfer, users,
} from './lib.js';

const HOT = Number(__ENV.HOT || 1);

export const options = optionsFor(1);
export { handleSummary };

export function setup() {
    return signEveryoneIn();
}

export default function (sessions) {
    // The owner of the hot account, user 0, pays nobody.
    const sender = 1 + randomIndex(users.length - 1);
    const receiver = Math.random() < HOT ? 0 : otherIndex(sender, users.length);
    transfer(sessions[sender], users[sender].accounts[0], users[receiver].accounts[0], '0.01');
}
