// Man pages and bash completion, made from the programs themselves: node deploy/words.mjs DIRECTORY
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Context } from '../dist/checkpoint-hooks/commands/context.js';
import { buildProgram } from '../dist/checkpoint-hooks/program.js';
import { helpText } from '../dist/proxy/config.js';

const directory = process.argv[2];
const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));
const program = buildProgram(new Context());

/** Of leaves: `group apply`, `protect` … */
const leaves = (command, path = []) =>
  command.commands.flatMap((one) => (one.commands.length > 0 ? leaves(one, [...path, one.name()]) : [{ command: one, path: [...path, one.name()] }]));
const roff = (text) => text.replaceAll('\\', '\\e').replaceAll('-', '\\-').replace(/^([.'])/gm, '\\&$1');
const options = (command) => command.options.filter((option) => !option.hidden).map((option) => `.TP\n.B ${roff(option.flags)}\n${roff(option.description)}\n`).join('');

const examples = (command) => {
  let text = '';
  command.configureOutput({ writeOut: (more) => (text += more) });
  command.outputHelp();
  const [, found] = /\nExamples?:\n([^]*?)(\n\n|$)/.exec(text) ?? [];
  return found === undefined ? '' : `.PP\n.nf\n${roff(found)}\n.fi\n`;
};

function sluicePage() {
  const commands = leaves(program).map(({ command, path }) =>
    `.SS ${roff(`${path.join(' ')} ${command.registeredArguments.map((one) => (one.required ? `<${one.name()}>` : `[${one.name()}]`)).join(' ')}`.trim())}\n${roff(command.description())}\n${options(command)}${examples(command)}`);
  return `.TH SLUICE 1 "" "sluice ${version}" "Sluice"\n.SH NAME\nsluice \\- ${roff(program.description())}\n.SH SYNOPSIS\n.B sluice\n[\\fIoptions\\fR] \\fIcommand\\fR [\\fIarguments\\fR]\n`
    + `.SH OPTIONS\n${options(program)}.SH COMMANDS\n${commands.join('')}`
    + '.SH EXIT STATUS\n0 done, 1 refused or failed, 2 bad usage, 3 daemon not reachable.\n.SH SEE ALSO\n.BR sluiced (8)\n';
}

function sluicedPage() {
  return `.TH SLUICED 8 "" "sluice ${version}" "Sluice"\n.SH NAME\nsluiced \\- holds the output of protected VM groups until their checkpoint commits\n.SH SYNOPSIS\n.B sluiced\n[\\fB\\-\\-config\\fR \\fIFILE\\fR] [\\fIflags\\fR]\n`
    + `.SH OPTIONS\n.nf\n${roff(helpText().split('\n').slice(4).join('\n'))}\n.fi\n`
    + '.SH SIGNALS\n.TP\n.B SIGHUP\ntokens and certificates are read again, the audit file is opened anew\n.TP\n.B SIGTERM, SIGINT\nin order: everyone is answered; what is protected stays protected in the kernel, what is held is lost\n'
    + '.SH FILES\n.TP\n.I /etc/sluice/sluice.yaml\nthe settings\n.TP\n.I /run/sluice/control.sock\nthe API; for root and the group sluice\n.TP\n.I /var/lib/sluice\nthe journal\n.SH SEE ALSO\n.BR sluice (1)\n';
}

function completion() {
  const names = (command) => command.commands.map((one) => one.name()).join(' ');
  const longs = (command) => command.options.map((option) => option.long).filter(Boolean).join(' ');
  const groups = program.commands.filter((one) => one.commands.length > 0).map((one) => `    ${one.name()}) words="${names(one)}" ;;\n`);
  const flags = leaves(program).map(({ command, path }) => `    "${path.join(' ')}") flags="${longs(command)} --help" ;;\n`);
  return `# bash completion for sluice
_sluice() {
  local cur=\${COMP_WORDS[COMP_CWORD]} path="" word words="" flags=""
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case $word in -*) ;; *) path="\${path:+$path }$word" ;; esac
  done
  case $path in
    "") words="${names(program)}" ;;
${groups.join('')}  esac
  case $path in
${flags.join('')}  esac
  case $cur in
    -*) COMPREPLY=($(compgen -W "$flags ${longs(program)}" -- "$cur")) ;;
    *) if [ -n "$words" ]; then COMPREPLY=($(compgen -W "$words" -- "$cur")); else COMPREPLY=($(compgen -f -- "$cur")); fi ;;
  esac
}
complete -F _sluice sluice
`;
}

mkdirSync(directory, { recursive: true });
writeFileSync(join(directory, 'sluice.1'), sluicePage());
writeFileSync(join(directory, 'sluiced.8'), sluicedPage());
writeFileSync(join(directory, 'sluice.bash'), completion());
