// Nine reads for each deposit: six balances, two statements, one list of accounts.

import exec from 'k6/execution';
import {
    deposit, handleSummary, listAccounts, optionsFor, randomIndex, showAccount, showStatement,
    signEveryoneIn, users,
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
    const turn = exec.scenario.iterationInTest % 10;
    if (turn === 0) deposit(session, account, '1.00');
    else if (turn === 1) listAccounts(session);
    else if (turn < 4) showStatement(session, account);
    else showAccount(session, account);
}
