# Completion for fish. The commands and their options are those of the program's own help.

# The options of a command, one a line: its name, its value and what is said of it, with tabs in between.
function __crieur_options
    crieur $argv[1] --help 2>/dev/null | awk '
        function end() { if (flag != "") print flag "\t" value "\t" text; flag = "" }
        /^  --[a-z-]+/ {
            end()
            text = $0
            sub(/^  /, "", text)
            flag = $1
            text = substr(text, length(flag) + 1)
            value = ""
            if (text ~ /^ [A-Z:]+( |$)/) { value = $2; text = substr(text, length(value) + 2) }
            sub(/^ +/, "", text)
            next
        }
        flag != "" && /^            / { gsub(/^ +/, ""); gsub(/  +/, " "); text = text (text == "" ? "" : " ") $0; next }
        { end() }
        END { end() }'
end

function __crieur_complete
    set -l before (commandline -opc)[2..]
    set -l token (commandline -ct)
    set -l commands (crieur help 2>/dev/null | string replace -rf '^  ([a-z]+) +(.*)' '$1\t$2')
    set -l command serve
    if set -q before[1]; and not string match -q -- '-*' $before[1]
        set command $before[1]
    end

    if test $command = help
        test (count $before) -eq 1; and printf '%s\n' $commands
        return
    end
    set -l options (__crieur_options $command)
    if set -q before[1]
        set -l value (printf '%s\n' $options | string replace -rf -- "^$before[-1]\t([^\t]+)\t.*" '$1')
        switch "$before[-1]=$value"
            case '--console=*'
                printf '%s\n' local public off
                return
            case '--log=*'
                printf '%s\n' error warn info debug trace off
                return
            case '--log-format=*'
                printf '%s\n' text json
                return
            case '--alg=*'
                printf '%s\n' HS256 ES256 EdDSA
                return
            case '--*=FILE'
                __fish_complete_path $token
                return
            case '--*=DIRECTORY'
                __fish_complete_directories $token
                return
            case '--*=?*'
                return
        end
    end
    if string match -q -- '-*' $token
        printf '%s\n' $options | string replace -r '\t[^\t]*\t' '\t'
        printf '%s\n' --help\t'Print the help'
        set -q before[1]; or printf '%s\n' --version\t'Print the version'
    else if not set -q before[1]
        printf '%s\n' $commands
    else if test $command = keygen
        if test (count $before) -eq 1
            printf '%s\n' client publish
        else
            __fish_complete_path $token
        end
    end
end

complete -c crieur -f -a '(__crieur_complete)'
