// The mix of the platform that microfin replaces, six requests in each iteration: a prepared user
// signs in, opens two accounts, deposits into the first new one and withdraws from it (so the deposit
// that was just answered must count), and transfers from the user's funded account to another
// prepared user's.

import {
    deposit, generateAccount, handleSummary, optionsFor, otherIndex, randomIndex, signIn,
    transfer, users, withdraw,
} from './lib.js';

export const options = optionsFor(6);
export { handleSummary };

export default function () {
    const index = randomIndex(users.length);
    const session = signIn(users[index]);
    if (!session) return;
    const account = generateAccount(session);
    generateAccount(session);
    if (account) {
        deposit(session, account, '100.00');
        withdraw(session, account, '40.00');
    }
    const receiver = users[otherIndex(index, users.length)].accounts[0];
    transfer(session, users[index].accounts[0], receiver, '1.00');
}
