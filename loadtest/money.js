// Deposits, withdrawals and transfers in equal numbers; users sign in once, before the run.

import exec from 'k6/execution';
import {
    deposit, handleSummary, optionsFor, otherIndex, randomIndex, signEveryoneIn, transfer, users,
    withdraw,
} from './lib.js';

export const options = optionsFor(1);
export { handleSummary };

export function setup() {
    return signEveryoneIn();
}

export default function (sessions) {
    const index = randomIndex(users.length);
    const session = sessions[index];
    const account = users[index].accounts[0];
    const turn = exec.scenario.iterationInTest % 3;
    if (turn === 0) {
        deposit(session, account, '1.00');
    } else if (turn === 1) {
        withdraw(session, account, '1.00');
    } else {
        transfer(session, account, users[otherIndex(index, users.length)].accounts[0], '1.00');
    }
}
