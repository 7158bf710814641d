# Completion for bash. The commands and their options are those of the program's own help.

# The option that the help of a command has, one a line, each with its value: "--key-file FILE".
_crieur_options() {
    "$1" "$2" --help 2>/dev/null | sed -nE 's/^  (--[a-z-]+( [A-Z:]+)?)(  .*)?$/\1/p'
}

_crieur() {
    local program=${1/#\~/$HOME} word=$2 previous=$3 command=serve commands options value candidates=
    compopt +o default 2>/dev/null
    COMPREPLY=()
    commands=$("$program" help 2>/dev/null | sed -nE 's/^  ([a-z]+)  .*/\1/p')
    if ((COMP_CWORD > 1)) && [[ ${COMP_WORDS[1]} != -* ]]; then command=${COMP_WORDS[1]}; fi

    if [[ $command == help ]]; then
        if ((COMP_CWORD == 2)); then candidates=$commands; fi
    else
        options=$(_crieur_options "$program" "$command")
        value=
        # As a word of its own, bash passes the sign of --log=debug.
        if [[ $word == = ]]; then word=; elif [[ $previous == = ]]; then previous=${COMP_WORDS[COMP_CWORD - 2]}; fi
        if [[ $previous == --* ]]; then value=$(awk -v name="$previous" '$1 == name { print $2 }' <<<"$options"); fi
        case $previous=$value in
            --console=*) candidates='local public off' ;;
            --log=*) candidates='error warn info debug trace off' ;;
            --log-format=*) candidates='text json' ;;
            --alg=*) candidates='HS256 ES256 EdDSA' ;;
            --*=FILE) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;
            --*=DIRECTORY) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- "$word"); return ;;
            --*=?*) ;;
            *)
                if [[ $word == -* ]]; then
                    candidates="$(cut -d ' ' -f 1 <<<"$options") --help"
                    if ((COMP_CWORD == 1)); then candidates+=' --version'; fi
                elif ((COMP_CWORD == 1)); then
                    candidates=$commands
                elif [[ $command == keygen && $COMP_CWORD == 2 ]]; then
                    candidates='client publish'
                elif [[ $command == keygen ]]; then
                    compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$word"); return
                fi
                ;;
        esac
    fi
    mapfile -t COMPREPLY < <(compgen -W "$candidates" -- "$word")
}

complete -F _crieur crieur
