<?php

declare(strict_types=1);

use Crieur\Failure;
use Crieur\Publisher;
use Crieur\Result;
use Crieur\Way;

/**
 * Tells every crieur what has happened. A server may be several nodes that share a Redis: one of them is told.
 *
 * What is to be told is written to the outbox, in the transaction of the change, and published behind the COMMIT. What
 * could not be published stays there: the next request that publishes takes it along, and outbox.php looks every
 * half second. Each notification keeps its key, so that a server delivers it once however often it is published.
 */
final class Notifier
{
    public const PACKAGE = 'amaiia_messages';
    /** A channel that is open, and gets the messages themselves. */
    public const MESSAGES = 'message_reader';
    /** The list of channels, which is told that it has changed. */
    public const CHANNELS = 'channel_list';
    /** Who is typing in a channel. */
    public const TYPING = 'message_typing';

    /** For all servers together: as long as the user waits at worst. */
    private const SECONDS = 1.0;
    /** Nobody waits for this, and it may come often. */
    private const TYPING_SECONDS = 0.2;
    /** The first server is that of the page; the others are for apps that know less. */
    private const OF_THE_PAGE = 0;
    /** A request has its own rows for so long: longer than it takes to publish them. */
    private const OWN_SECONDS = 3;
    private const ROWS_MAX = 100;

    /** What this request has written to the outbox, by server. @var array<int, array<int, string>> */
    private array $own = [];

    /** What was reported last, by server. @var array<int, ?string> */
    private static array $faults = [];

    /** @param list<non-empty-list<Publisher>> $servers the nodes of each server */
    public function __construct(private readonly Database $database, private readonly array $servers)
    {
    }

    public static function fromEnvironment(Database $database): self
    {
        $token = trim(file_get_contents(getenv('PUBLISH_TOKEN_FILE')) ?: '');
        $addresses = preg_split('~\s+~', getenv('CRIEUR_PUBLISH') ?: '', flags: PREG_SPLIT_NO_EMPTY);
        $way = Way::from(getenv('CRIEUR_WAY') ?: 'http');
        $node = static fn (string $address): Publisher
            => new Publisher($address, $token, totalSeconds: self::SECONDS, way: $way);
        $nodes = static fn (string $addresses): array => array_map($node, explode(',', $addresses));
        return new self($database, array_map($nodes, $addresses));
    }

    /** The position of the page's server; `null` if that isn't to be had. */
    public function position(): ?string
    {
        $ask = static fn (Publisher $node, float $seconds): Result => $node->position($seconds);
        $result = $this->ask(self::OF_THE_PAGE, self::now() + self::SECONDS, $ask);
        if ($result?->failure !== null) {
            error_log("no position: {$result->failure->value}: $result->detail");
        }
        return $result?->id;
    }

    /**
     * A message is added, in the transaction that is open: those who read the channel get it, the lists of
     * channels have changed. `publish()` has to follow behind the COMMIT.
     *
     * @param array<string, mixed> $message
     */
    public function messageAdded(int $channel, array $message): void
    {
        $messages = [
            ['notification' => ['type' => 'chat', ...self::at(self::MESSAGES, $channel), 'message' => $message]],
            ['type' => 'refreshcontent', 'notification' => self::at(self::CHANNELS, $channel)],
        ];
        foreach ($messages as $message) {
            $json = json_encode(['key' => bin2hex(random_bytes(16))] + $message, JSON_THROW_ON_ERROR);
            foreach (array_keys($this->servers) as $server) {
                $this->own[$server][$this->database->addToOutbox($server, time() + self::OWN_SECONDS, $json)] = $json;
            }
        }
    }

    /** Only those who look at the page now are told, and nobody later. */
    public function typing(int $channel, array $user): void
    {
        $who = ['login' => $user['login'], 'name' => $user['name']];
        $message = ['type' => 'typing', 'keep' => false, 'notification' => self::at(self::TYPING, $channel) + $who];
        $this->publishOne(self::OF_THE_PAGE, $message, self::now() + self::TYPING_SECONDS);
    }

    /** Publishes what this request has added, and before it what is left over. Says whether all servers have all of it. */
    public function publish(): bool
    {
        $deadline = self::now() + self::SECONDS;
        $isTold = true;
        try {
            foreach (array_keys($this->servers) as $server) {
                $isTold = $this->publishTo($server, $deadline) && $isTold;
            }
        } catch (Throwable $error) {
            // The change is committed: the request has not failed. What is in the outbox is published later.
            error_log((string) $error);
            $isTold = false;
        }
        return $isTold;
    }

    /** Drops what was for servers that CRIEUR_PUBLISH doesn't have any more. */
    public function forgetRemovedServers(): void
    {
        // None at all is a mistake rather than a wish.
        if ($this->servers !== []) {
            $this->database->forgetServersFrom(count($this->servers));
        }
    }

    /** Publishes what is left over. A server that is silent takes no time from the others. Says whether there may be more. */
    public function publishLeftOver(): bool
    {
        $hasMore = false;
        foreach (array_keys($this->servers) as $server) {
            $this->publishTo($server, self::now() + self::SECONDS, $isFull);
            $hasMore = $hasMore || $isFull;
        }
        return $hasMore;
    }

    /** Publishes in order: the first that can't be published ends it. Says whether the server has what is of this request. */
    private function publishTo(int $server, float $deadline, ?bool &$isFull = null): bool
    {
        $own = $this->own[$server] ?? [];
        unset($this->own[$server]);
        $left = array_column($this->database->outbox($server, self::ROWS_MAX), 'message', 'id');
        // Where there may be more, it isn't the turn of what is new.
        $isFull = count($left) === self::ROWS_MAX;
        $told = [];
        $removed = [];
        foreach ($isFull ? $left : $left + $own as $id => $json) {
            $message = json_decode($json, true, flags: JSON_THROW_ON_ERROR);
            $result = $this->publishOne($server, $message, $deadline);
            $this->report($server, $result);
            if ($result->isSent()) {
                $told[] = $id;
            } elseif ($result->failure !== Failure::Invalid) {
                $isFull = false;
                break;
            }
            // What no server takes would be in the way of the rest for ever.
            $removed[] = $id;
        }
        $this->database->removeFromOutbox($removed);
        $this->database->releaseInOutbox(array_values(array_diff(array_keys($own), $removed)));
        return array_diff(array_keys($own), $told) === [];
    }

    private function publishOne(int $server, array $message, float $deadline): ?Result
    {
        $publish = static fn (Publisher $node, float $seconds): Result => $node->publishAll([$message], $seconds)[0];
        return $this->ask($server, $deadline, $publish);
    }

    /**
     * Asks the nodes of a server, in their order, until one has done it. The next may publish what the one before has
     * not confirmed: they know each other's keys. What has no key may come twice then. `null` if there is no such server.
     *
     * @param callable(Publisher, float): Result $ask with the seconds that it may take
     */
    private function ask(int $server, float $deadline, callable $ask): ?Result
    {
        $result = null;
        $nodes = $this->servers[$server] ?? [];
        foreach ($nodes as $index => $node) {
            // One that is silent leaves the others their share of the time.
            $result = $ask($node, ($deadline - self::now()) / (count($nodes) - $index));
            if ($result->isSent() || $result->failure === Failure::Invalid) {
                break;
            }
        }
        return $result;
    }

    /** Once for many that fail alike: outbox.php tries twice a second. */
    private function report(int $server, Result $result): void
    {
        $fault = $result->failure === null ? null : "not notified: {$result->failure->value}: $result->detail";
        if ($fault !== null && $fault !== (self::$faults[$server] ?? null)) {
            error_log($fault);
        }
        self::$faults[$server] = $fault;
    }

    /** @return array<string, mixed> a page of the application, for a channel */
    private static function at(string $page, int $channel): array
    {
        return ['page' => $page, 'package' => self::PACKAGE, 'filters' => ['values' => ['channel' => (string) $channel]]];
    }

    private static function now(): float
    {
        return hrtime(true) / 1e9;
    }
}
