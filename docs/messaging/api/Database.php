<?php

declare(strict_types=1);

/**
 * What the API keeps. All SQL is here, and runs unchanged on SQLite, MariaDB and PostgreSQL.
 */
final class Database
{
    private const SESSION_SECONDS = 43200;

    private function __construct(private readonly PDO $pdo)
    {
    }

    public static function open(): self
    {
        $dsn = getenv('DATABASE_DSN');
        $pdo = new PDO($dsn, getenv('DATABASE_USER') ?: null, getenv('DATABASE_PASSWORD') ?: null, [
            PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION,
            PDO::ATTR_DEFAULT_FETCH_MODE => PDO::FETCH_ASSOC,
            // Seconds: for SQLite, how long to wait for another writer.
            PDO::ATTR_TIMEOUT => 5,
        ]);
        if (str_starts_with($dsn, 'sqlite:')) {
            $pdo->exec('PRAGMA foreign_keys = ON');
            $pdo->exec('PRAGMA synchronous = NORMAL');
        }
        return new self($pdo);
    }

    /** Does `$work` in a transaction: all of it is kept, or nothing. */
    public function transaction(callable $work): mixed
    {
        $this->pdo->beginTransaction();
        try {
            $result = $work();
            $this->pdo->commit();
            return $result;
        } catch (Throwable $error) {
            if ($this->pdo->inTransaction()) {
                $this->pdo->rollBack();
            }
            throw $error;
        }
    }

    /** @return ?array{id: int, login: string, name: string} */
    public function userWithPassword(string $login, string $password): ?array
    {
        $user = $this->rows('SELECT id, login, name, password FROM users WHERE login = ?', [$login])[0] ?? null;
        // As much work for a login that doesn't exist: the time must not tell which do.
        $hash = $user['password'] ?? '$2y$10$Sm1G0iJ5/pUBBmCvzfQTeOYbKiLOWKf1RtxjtIzCt28EyHVhXPQ3m';
        if (!password_verify($password, $hash) || $user === null) {
            return null;
        }
        unset($user['password']);
        return $user;
    }

    public function addSession(int $user): string
    {
        $session = bin2hex(random_bytes(32));
        $this->run('DELETE FROM sessions WHERE expires < ?', [time()]);
        $this->run(
            'INSERT INTO sessions (hash, user_id, expires) VALUES (?, ?, ?)',
            [hash('sha256', $session), $user, time() + self::SESSION_SECONDS],
        );
        return $session;
    }

    public function removeSession(string $session): void
    {
        $this->run('DELETE FROM sessions WHERE hash = ?', [hash('sha256', $session)]);
    }

    /** @return ?array{id: int, login: string, name: string} */
    public function userOfSession(string $session): ?array
    {
        return $this->rows(
            'SELECT users.id, users.login, users.name FROM sessions
             JOIN users ON users.id = sessions.user_id WHERE sessions.hash = ? AND sessions.expires >= ?',
            [hash('sha256', $session), time()],
        )[0] ?? null;
    }

    /** The channels of a user, each with its newest message and how many there are since the last that was read. */
    public function channelsOf(int $user): array
    {
        return $this->rows(
            'SELECT channels.id, channels.name, members.last_read AS lastread,
                    (SELECT MAX(id) FROM messages WHERE channel_id = channels.id) AS newest,
                    (SELECT COUNT(*) FROM messages
                     WHERE channel_id = channels.id AND id > members.last_read AND sent_by <> members.user_id) AS unread
             FROM members JOIN channels ON channels.id = members.channel_id
             WHERE members.user_id = ? ORDER BY channels.name',
            [$user],
        );
    }

    public function isMember(int $user, int $channel): bool
    {
        return $this->rows('SELECT 1 FROM members WHERE user_id = ? AND channel_id = ?', [$user, $channel]) !== [];
    }

    public function addMessage(int $channel, int $user, string $title, string $details): int
    {
        $this->run(
            'INSERT INTO messages (channel_id, sent_by, title, details, sent_at) VALUES (?, ?, ?, ?, ?)',
            [$channel, $user, $title, $details, gmdate('Y-m-d\TH:i:s\Z')],
        );
        return (int) $this->pdo->lastInsertId();
    }

    /** The messages behind `$after`, oldest first; the newest ones if that is null. */
    public function messages(int $channel, ?int $after, int $limit): array
    {
        $order = $after === null ? 'DESC' : 'ASC';
        $rows = $this->rows(
            "SELECT messages.id, users.login, users.name, messages.title, messages.details, messages.sent_at
             FROM messages JOIN users ON users.id = messages.sent_by
             WHERE messages.channel_id = ? AND messages.id > ? ORDER BY messages.id $order LIMIT $limit",
            [$channel, $after ?? 0],
        );
        return $after === null ? array_reverse($rows) : $rows;
    }

    public function message(int $id): array
    {
        return $this->rows(
            'SELECT messages.id, users.login, users.name, messages.title, messages.details, messages.sent_at
             FROM messages JOIN users ON users.id = messages.sent_by WHERE messages.id = ?',
            [$id],
        )[0];
    }

    public function markRead(int $user, int $channel, int $message): void
    {
        $this->run(
            'UPDATE members SET last_read = ? WHERE user_id = ? AND channel_id = ? AND last_read < ?',
            [$message, $user, $channel, $message],
        );
    }

    // The outbox.

    /** @param int $due until then, this request publishes it */
    public function addToOutbox(int $server, int $due, string $message): int
    {
        $this->run('INSERT INTO outbox (server, due, message) VALUES (?, ?, ?)', [$server, $due, $message]);
        return (int) $this->pdo->lastInsertId();
    }

    /** What is left over from others, oldest first. */
    public function outbox(int $server, int $limit): array
    {
        return $this->rows(
            "SELECT id, message FROM outbox WHERE server = ? AND due <= ? ORDER BY id LIMIT $limit",
            [$server, time()],
        );
    }

    /** @param list<int> $ids */
    public function removeFromOutbox(array $ids): void
    {
        if ($ids !== []) {
            $this->run('DELETE FROM outbox WHERE id IN (' . self::marks($ids) . ')', $ids);
        }
    }

    /** Leaves them to others. @param list<int> $ids */
    public function releaseInOutbox(array $ids): void
    {
        if ($ids !== []) {
            $this->run('UPDATE outbox SET due = 0 WHERE id IN (' . self::marks($ids) . ')', $ids);
        }
    }

    /** Forgets what was for servers that there are no more. */
    public function forgetServersFrom(int $server): void
    {
        $this->run('DELETE FROM outbox WHERE server >= ?', [$server]);
    }

    private static function marks(array $values): string
    {
        return implode(', ', array_fill(0, count($values), '?'));
    }

    /** Makes the tables, and a few users to begin with. */
    public function create(string $schema, array $users, array $channels): void
    {
        foreach (explode(';', $schema) as $statement) {
            if (trim($statement) !== '') {
                $this->pdo->exec($statement);
            }
        }
        $ids = [];
        foreach ($users as $login => [$name, $password]) {
            $hash = password_hash($password, PASSWORD_DEFAULT);
            $this->run('INSERT INTO users (login, name, password) VALUES (?, ?, ?)', [$login, $name, $hash]);
            $ids[$login] = (int) $this->pdo->lastInsertId();
        }
        foreach ($channels as $name => $members) {
            $this->run('INSERT INTO channels (name) VALUES (?)', [$name]);
            $channel = (int) $this->pdo->lastInsertId();
            foreach ($members as $login) {
                $this->run('INSERT INTO members (channel_id, user_id, last_read) VALUES (?, ?, 0)', [$channel, $ids[$login]]);
            }
        }
    }

    private function rows(string $sql, array $values): array
    {
        $statement = $this->pdo->prepare($sql);
        $statement->execute($values);
        return $statement->fetchAll();
    }

    private function run(string $sql, array $values): void
    {
        $this->pdo->prepare($sql)->execute($values);
    }
}
