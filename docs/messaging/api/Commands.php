<?php

declare(strict_types=1);

/** What the API can do. Each command checks its arguments, and whether this user may. */
final class Commands
{
    private const TITLE_CHARACTERS_MAX = 120;
    private const DETAILS_CHARACTERS_MAX = 4000;
    private const MESSAGES_MAX = 100;

    /** @param ?array{id: int, login: string, name: string} $user the one who is logged in */
    public function __construct(
        private readonly Database $database,
        private readonly Notifier $notifier,
        private readonly ?array $user,
        private readonly ?string $session,
    ) {
    }

    public function run(string $command, array $arguments): array
    {
        return match ($command) {
            'user/login' => $this->login($arguments),
            'user/logout' => $this->logout(),
            'user/token' => ['token' => $this->token($this->user())],
            'page/load' => $this->loadPage($arguments),
            'channel/list' => ['channels' => $this->channels()],
            'channel/read' => $this->markRead($arguments),
            'channel/typing' => $this->tellTyping($arguments),
            'message/add' => $this->addMessage($arguments),
            'message/list' => $this->listMessages($arguments),
            default => throw new ApiError(400, 'unknown-command', "there is no command $command"),
        };
    }

    private function login(array $arguments): array
    {
        $user = $this->database->userWithPassword(
            self::text($arguments, 'login', 1, 64),
            self::text($arguments, 'password', 1, 72),
        );
        if ($user === null) {
            throw new ApiError(401, 'login', 'wrong name or password');
        }
        return [
            'session' => $this->database->addSession($user['id']),
            'token' => $this->token($user),
            'user' => ['login' => $user['login'], 'name' => $user['name']],
        ];
    }

    private function logout(): array
    {
        $this->user();
        $this->database->removeSession($this->session);
        return [];
    }

    private function token(array $user): string
    {
        $channels = array_column($this->database->channelsOf($user['id']), 'id');
        return ClientToken::sign(getenv('CLIENT_KEY_FILE'), $user['login'], $channels);
    }

    private function addMessage(array $arguments): array
    {
        $user = $this->user();
        $channel = $this->channelOf($arguments);
        $title = self::text($arguments, 'title', 0, self::TITLE_CHARACTERS_MAX);
        $details = self::text($arguments, 'details', 1, self::DETAILS_CHARACTERS_MAX);
        if (self::text($arguments, 'sentby', 1, 64) !== $user['login']) {
            throw new ApiError(403, 'forbidden', 'sentby is not the user who is logged in');
        }
        $message = $this->database->transaction(function () use ($channel, $user, $title, $details): array {
            $id = $this->database->addMessage($channel, $user['id'], $title, $details);
            $message = self::message($this->database->message($id));
            $this->notifier->messageAdded($channel, $message);
            return $message;
        });
        return ['message' => $message, 'notified' => $this->notifier->publish()];
    }

    private function listMessages(array $arguments): array
    {
        $this->user();
        $channel = $this->channelOf($arguments);
        return $this->messages($channel, isset($arguments['after']) ? self::number($arguments, 'after') : null);
    }

    private function messages(int $channel, ?int $after): array
    {
        $rows = $this->database->messages($channel, $after, self::MESSAGES_MAX + 1);
        $hasMore = count($rows) > self::MESSAGES_MAX;
        // The one too many is the newest, or of the newest ones the oldest.
        $rows = $after === null ? array_slice($rows, -self::MESSAGES_MAX) : array_slice($rows, 0, self::MESSAGES_MAX);
        return ['messages' => array_map(self::message(...), $rows), 'more' => $hasMore];
    }

    /**
     * All that the page shows first, and the position in crieur's history behind which it goes on: what was committed
     * before the rows were read is in them, and the rest is published behind the position. So the position comes first,
     * and the transaction begins behind it, on the primary.
     */
    private function loadPage(array $arguments): array
    {
        $this->user();
        $name = $arguments['channel'] ?? null;
        $position = $this->notifier->position();
        return $this->database->transaction(function () use ($name, $position): array {
            $channels = $this->channels();
            $wanted = array_search($name, array_column($channels, 'name'), true);
            $open = $channels[(int) $wanted] ?? null;
            return [
                'position' => $position,
                'channels' => $channels,
                'open' => $open === null ? null : ['id' => $open['id']] + $this->messages((int) $open['id'], null),
            ];
        });
    }

    private function channels(): array
    {
        return array_map(self::channel(...), $this->database->channelsOf($this->user()['id']));
    }

    private function tellTyping(array $arguments): array
    {
        $this->notifier->typing($this->channelOf($arguments), $this->user());
        return [];
    }

    private function markRead(array $arguments): array
    {
        $this->database->markRead($this->user()['id'], $this->channelOf($arguments), self::number($arguments, 'messageid'));
        return [];
    }

    // What leaves: ids are text, as the apps expect them.

    private static function message(array $row): array
    {
        return [
            'id' => (string) $row['id'],
            'login' => $row['login'],
            'name' => $row['name'],
            'title' => $row['title'],
            'text' => $row['details'],
            'sentat' => $row['sent_at'],
        ];
    }

    private static function channel(array $row): array
    {
        return ['id' => (string) $row['id'], 'name' => $row['name'], 'unread' => (int) $row['unread'], 'newest' => (string) $row['newest']];
    }

    // What comes in.

    private function user(): array
    {
        return $this->user ?? throw new ApiError(401, 'session', 'log in first');
    }

    /** A channel of this user; others don't learn whether it exists. */
    private function channelOf(array $arguments): int
    {
        $channel = self::number($arguments, 'channelid');
        if (!$this->database->isMember($this->user()['id'], $channel)) {
            throw new ApiError(403, 'forbidden', "channel $channel is not one of yours");
        }
        return $channel;
    }

    private static function number(array $arguments, string $name): int
    {
        $value = $arguments[$name] ?? null;
        $isNumber = is_int($value) && $value >= 0 || is_string($value) && preg_match('~^\d{1,18}$~', $value);
        return $isNumber ? (int) $value : throw new ApiError(422, 'invalid', "$name must be a number");
    }

    private static function text(array $arguments, string $name, int $min, int $max): string
    {
        $value = $arguments[$name] ?? ($min === 0 ? '' : null);
        // `u` refuses what is not UTF-8; MariaDB's and PostgreSQL's texts have no NUL.
        if (!is_string($value) || !preg_match("~^[^\\0]{0,$max}$~Dus", $trimmed = trim($value)) || strlen($trimmed) < $min) {
            throw new ApiError(422, 'invalid', "$name must be a text of $min to $max characters");
        }
        return $trimmed;
    }
}
