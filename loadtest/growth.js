// The mix, while the platform grows: `make load SCRIPT=growth.js GROW=6` runs `make grow` to 6
// partitions when a third of the run is over.

export { default, handleSummary, options } from './mix.js';
