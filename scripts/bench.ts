// `npm run bench -- <what>`: measures the ops and the cost of calling them. Each subcommand is a file in scripts/bench that
// exports a yargs CommandModule; a new one adds its file and one line here. Progress and tables go to stdout as text; the
// last line is JSON.

import { codeOf, messageOf } from '../src/errors';
import { CHECKPOINT } from './bench/checkpoint';
import { DISPATCH } from './bench/dispatch';
import { ENGINE } from './bench/engine';
import { FAMILIES } from './bench/families';
import { FILM } from './bench/film';
import { GRAMMAR } from './bench/grammar';
import { LOAD } from './bench/load';
import { LOSSLESS } from './bench/lossless';
import { MODEL } from './bench/model';
import { checkNumbers } from './bench/numbers';
import { OPS } from './bench/ops';
import { OVERHEAD } from './bench/overhead';
import { PACK } from './bench/pack';
import { TOWER_FILM } from './bench/tower_film';
import { TOWER_SPARSITY } from './bench/tower_sparsity';

async function main(): Promise<void> {
  const { default: yargs } = await import('yargs');
  const { hideBin } = await import('yargs/helpers');
  const parser = yargs(hideBin(process.argv));
  await parser
    .scriptName('npm run bench --')
    .usage('$0 <what> [options]\n\nMeasures this machine and what runs on it. The last line of output is JSON.')
    .command(OPS)
    .command(DISPATCH)
    .command(MODEL)
    .command(FAMILIES)
    .command(OVERHEAD)
    .command(FILM)
    .command(TOWER_SPARSITY)
    .command(TOWER_FILM)
    .command(PACK)
    .command(CHECKPOINT)
    .command(LOAD)
    .command(LOSSLESS)
    .command(ENGINE)
    .command(GRAMMAR)
    .demandCommand(
      1,
      'Expected what to measure: ops, dispatch, model, families, overhead, film, tower-sparsity, tower-film, pack, checkpoint, load, lossless, engine or grammar.',
    )
    .strict()
    .fail((message, error) => {
      throw error ?? new Error(message);
    })
    .middleware((args) => checkNumbers(args, parser))
    .help()
    .version(false)
    .wrap(110)
    .parseAsync();
}

main().catch((error: unknown) => {
  const code = codeOf(error);
  process.stderr.write(`bench: ${code === undefined ? '' : `${code}: `}${messageOf(error)}\n`);
  process.exitCode = 1;
});
