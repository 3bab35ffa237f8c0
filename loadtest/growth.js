// The mix, while `make grow` runs beside it: `make load SCRIPT=growth.js GROW=6` grows to 6
// partitions when a third of the run is over.

export { default, handleSummary, options } from './mix.js';
