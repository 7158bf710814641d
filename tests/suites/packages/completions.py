"""What bash, zsh and fish offer for a command line, by the completions of the package."""

import subprocess

import harness

# A file and a folder that are there to be offered.
FILE, FOLDER = "a.key", "history"

BASH = r"""
source "$1/usr/share/bash-completion/completions/crieur"
compopt() { :; }
[[ $(complete -p crieur) =~ -F\ ([_a-z]+) ]]
while IFS= read -r line; do
    read -ra COMP_WORDS <<<"$line"
    if [[ $line == *' ' ]]; then COMP_WORDS+=(''); fi
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()
    "${BASH_REMATCH[1]}" crieur "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
    echo "= ${COMPREPLY[*]}"
done
"""

FISH = r"""
source $argv[1]/usr/share/fish/vendor_completions.d/crieur.fish
while read -l line
    echo = (complete -C $line | string replace -r '\t.*' '')
end
"""

# A shell in a terminal, whose function for what is offered writes that into a file.
ZSH = r"""
zmodload zsh/zpty
export OFFERED=$PWD/../offered
zpty shell zsh -f -i
say() { zpty -w "$@"; }
say shell "fpath=($1/usr/share/zsh/vendor-completions \$fpath); autoload -Uz compinit; compinit -u -D"
say shell 'compadd() {
    local -a offered
    if [[ ${@[1,(i)(-|--)]} != *-(O|A|D)\ * ]]; then builtin compadd -A offered "$@"; print -rl -- $offered >>$OFFERED; fi
    builtin compadd "$@"
}'
say shell 'offer() { zle list-choices; print -r -- = >>$OFFERED; BUFFER= }; zle -N offer; bindkey "^O" offer'
while IFS= read -r line; do
    : >$OFFERED
    say -n shell "$line"$'\x0f'
    until grep -q "^=\$" $OFFERED; do zpty -r -t shell said; done
    print -r -- = $(grep -v "^=\$" $OFFERED)
done
"""

# Where bash takes a word apart, and where a word is no option.
BASH_CASES = {
    "crieur --log = d": {"debug"},
    "crieur --log =": {"error", "warn", "info", "debug", "trace", "off"},
    "crieur --log/x ": set(),
}

SHELLS = {
    "bash": ["bash", "--norc", "-c", BASH, "bash"],
    "zsh": ["zsh", "-f", "-c", ZSH, "zsh"],
    "fish": ["fish", "--no-config", "-c", FISH],
}


def check(files, helps, folder):
    """Raises a failure unless each shell offers what the help has; `files` are those of the package."""
    place = folder / "completed"
    (place / FOLDER).mkdir(parents=True)
    (place / FILE).touch()
    every = expected(helps)
    for shell, command in SHELLS.items():
        cases = every | (BASH_CASES if shell == "bash" else {})
        offered = subprocess.run(
            [*command, files], cwd=place, env={"PATH": f"{files}/usr/bin:/usr/bin:/bin", "HOME": str(place), "TERM": "dumb"},
            input="".join(f"{line}\n" for line in cases), capture_output=True, text=True, timeout=60,
        )
        answers = [line.removeprefix("=") for line in offered.stdout.splitlines() if line.startswith("=")]
        if len(answers) != len(cases) or shell == "bash" and offered.stderr:
            raise harness.Failure(f"{shell} answers {offered.stdout}{offered.stderr}")
        for (line, wanted), answer in zip(cases.items(), answers):
            # fish has a slash behind a folder.
            words = {word.rstrip("/") for word in answer.split()}
            if words != wanted:
                raise harness.Failure(f"{shell} offers {sorted(words)} for {line!r}, not {sorted(wanted)}")


def expected(helps):
    """Command lines, and what is to be offered where they end."""
    cases = {
        "crieur ": {*helps.commands},
        "crieur pu": {"publish"},
        "crieur help ": {*helps.commands},
        "crieur help key": {"keygen"},
        "crieur --": helps.options("serve") | {"--help", "--version"},
        "crieur --log ": {"error", "warn", "info", "debug", "trace", "off"},
        "crieur --log-format ": {"text", "json"},
        "crieur serve --console ": {"local", "public", "off"},
        "crieur serve --history-directory ": {FOLDER},
        "crieur serve --max-connections ": set(),
        "crieur serve --listen 127.0.0.1:1 --no-local-publish --log": {"--log", "--log-format"},
        "crieur keygen ": {"client", "publish"},
        "crieur keygen client ": {FILE, FOLDER},
        "crieur keygen client --alg ": {"HS256", "ES256", "EdDSA"},
        "crieur subscribe ": set(),
        "crieur token --key-file a --allow b --allow c --tt": {"--ttl"},
    }
    for command in helps.texts:
        cases[f"crieur {command} --"] = helps.options(command) | {"--help"}
        for entry in helps.entries(command):
            if entry.endswith(" FILE"):
                cases[f"crieur {command} {entry.removesuffix('FILE')}"] = {FILE, FOLDER}
    return cases
