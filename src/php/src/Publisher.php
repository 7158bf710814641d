<?php

declare(strict_types=1);

namespace Crieur;

use Closure;
use Crieur\Internal\Attempt;
use Crieur\Internal\Endpoint;
use Crieur\Internal\Http;
use Crieur\Internal\Message;
use Crieur\Internal\WebSocket;
use Throwable;

/**
 * Publishes notifications to crieur.
 *
 *     $crieur = new Publisher('unix:///run/crieur/publish.sock', $token);
 *     $result = $crieur->publish(['channel' => 'orders', 'id' => 17, 'text' => 'Order 17 is paid']);
 *     if (!$result->isSent()) error_log("not notified: $result->detail");
 *
 * Nothing is thrown unless `orThrow()` is called on a result, and no call lasts longer than its time-out.
 *
 * Each notification has a key. Where the answer is lost, it is published a second time with the same key, and
 * the server delivers it only if it hasn't yet. That is done where it is safe:
 *   - A server with a history knows the key for as long as the notification is in it. If it loses its history
 *     between the two, or another server gets the second, that is noticed by its position, unless this object has
 *     had no id before: then it is delivered again.
 *   - A server whose history is off refuses keys. It gets the notification without one, once.
 *   - An older server ignores keys, and has no position. What it may have got isn't published again.
 */
final class Publisher
{
    /** What a request may have: so many notifications, and as many bytes as a server takes by default. */
    private const BATCH_MESSAGES_MAX = 1000;
    private const BATCH_BYTES_MAX = 1 << 20;

    private readonly Http $http;
    private readonly WebSocket $webSocket;
    /** Whether the server has refused a key. */
    private bool $refusesKeys = false;
    /** That of the newest id; `null` if there was none. */
    private ?string $history = null;

    /**
     * @param string $address `unix:///path`, `http://127.0.0.1:8000` or `https://crieur.example.org`; `tcp://` and
     *     `tls://` mean the same. An IP address is best: looking up a name takes as long as it takes.
     * @param ?string $token a line of the server's `--publish-token-file`
     * @param float $connectSeconds for each connection; over TLS, as long again for its handshake
     * @param float $totalSeconds for a call, however many notifications it has
     */
    public function __construct(
        string $address,
        #[\SensitiveParameter]
        ?string $token = null,
        float $connectSeconds = 0.2,
        private readonly float $totalSeconds = 1.0,
        private Way $way = Way::Http,
    ) {
        $endpoint = new Endpoint($address, $token, $connectSeconds);
        $this->http = new Http($endpoint);
        $this->webSocket = new WebSocket($endpoint);
    }

    /**
     * @param array<string, mixed>|object $notification what JSON has as an object
     * @param ?string $key the same for each attempt to publish this notification, of later calls too; by default
     *     one that is good for this call
     * @param bool $keep `false` for what concerns only clients that are connected now, such as somebody who is typing:
     *     the server doesn't keep it for those that come back, and it isn't published again
     */
    public function publish(
        array|object $notification,
        string $type = 'notification',
        ?string $key = null,
        bool $keep = true,
    ): Result {
        $options = ($key === null ? [] : ['key' => $key]) + ($keep ? [] : ['keep' => false]);
        return $this->publishAll([['type' => $type] + $options + ['notification' => $notification]])[0];
    }

    /**
     * Publishes in this order. One that is invalid doesn't hold up the others. After a server that can't be reached or
     * takes too long, the rest is not tried.
     *
     * @param list<array{type?: string, key?: string, keep?: bool, notification: array<string, mixed>|object}> $messages
     * @param ?float $seconds a time-out shorter than the usual one
     * @return list<Result> one for each message
     */
    public function publishAll(array $messages, ?float $seconds = null): array
    {
        return $this->inTime($seconds, function (float $deadline) use ($messages): array {
            $results = [];
            $valid = [];
            foreach (array_values($messages) as $index => $message) {
                try {
                    $valid[$index] = Message::from($message);
                } catch (PublishException $failure) {
                    $results[$index] = Result::failed($failure->failure, $failure->getMessage());
                } catch (Throwable $failure) {
                    // What a JsonSerializable throws.
                    $results[$index] = Result::failed(Failure::Invalid, $failure->getMessage());
                }
            }
            $sent = $this->deliverBatches($this->batches(array_values($valid)), $deadline);
            $results += array_combine(array_keys($valid), $sent);
            ksort($results);
            return array_values($results);
        });
    }

    /**
     * The position in the server's history, as `id` of the result. What is read from the database after this call,
     * in a transaction that was begun after it, has everything that was published up to there.
     */
    public function position(?float $seconds = null): Result
    {
        return $this->inTime($seconds, $this->askForPosition(...));
    }

    /**
     * @template T
     * @param Closure(float): T $work
     * @return T
     */
    private function inTime(?float $seconds, Closure $work): mixed
    {
        // The application may have a handler that throws at each warning.
        set_error_handler(static fn (): bool => true);
        try {
            return $work(Attempt::now() + min($this->totalSeconds, $seconds ?? $this->totalSeconds));
        } finally {
            restore_error_handler();
        }
    }

    /**
     * What goes in a request each: neighbours that are kept, or neighbours that are not, since the latter have no keys
     * and may not be repeated.
     *
     * @param list<Message> $messages
     * @return list<non-empty-list<Message>>
     */
    private function batches(array $messages): array
    {
        $batches = [];
        $bytes = 0;
        foreach ($messages as $message) {
            $last = array_key_last($batches);
            // With the comma.
            $bytes += strlen($message->keyed) + 1;
            $isFull = $last === null
                || $bytes >= self::BATCH_BYTES_MAX
                || count($batches[$last]) === self::BATCH_MESSAGES_MAX
                || $batches[$last][0]->isKept !== $message->isKept;
            if ($isFull) {
                $batches[] = [$message];
                $bytes = strlen($message->keyed) + 2;
            } else {
                $batches[$last][] = $message;
            }
        }
        return $batches;
    }

    /**
     * @param list<non-empty-list<Message>> $batches
     * @return list<Result> one for each message
     */
    private function deliverBatches(array $batches, float $deadline): array
    {
        $results = [];
        $gaveUp = null;
        foreach ($batches as $batch) {
            $more = $gaveUp === null ? $this->deliver($batch, $deadline) : array_fill(0, count($batch), $gaveUp);
            foreach ($more as $result) {
                if ($result->failure === Failure::Unreachable || $result->failure === Failure::Timeout) {
                    $gaveUp ??= Result::failed(Failure::Unreachable, "not tried: $result->detail");
                }
            }
            array_push($results, ...$more);
        }
        return $results;
    }

    /**
     * @param non-empty-list<Message> $batch
     * @return non-empty-list<Result>
     */
    private function deliver(array $batch, float $deadline): array
    {
        if ($this->way !== Way::Http && count($batch) > 1) {
            return $this->deliverBatches(array_chunk($batch, 1), $deadline);
        }
        $results = $batch[0]->isKept && !$this->refusesKeys
            ? $this->deliverKeyed($batch, $deadline)
            : $this->attempt($batch, false, Attempt::until($deadline));
        $isHeldUp = $results[0]->failure === Failure::Invalid;
        // The server took none of them. Either one is in the way of the others, or the server takes one at a time.
        if (count($batch) > 1 && ($isHeldUp || $this->way !== Way::Http)) {
            return $this->deliverBatches(array_chunk($batch, intdiv(count($batch) + 1, 2)), $deadline);
        }
        return $results;
    }

    /**
     * @param non-empty-list<Message> $batch
     * @return non-empty-list<Result>
     */
    private function deliverKeyed(array $batch, float $deadline): array
    {
        // Servers that ignore keys have no position. Others know a key, or else refuse it; but not one that they were
        // given before they lost their history.
        $hasPosition = null;
        $knowsKeys = function () use (&$hasPosition, $deadline): bool {
            if ($hasPosition === null) {
                $position = $this->askForPosition($deadline)->id;
                $hasPosition = $position !== null
                    && ($this->history === null || $this->history === self::historyOf($position));
            }
            return $hasPosition;
        };
        $first = Attempt::first($deadline, $knowsKeys);
        $results = $this->attempt($batch, true, $first);
        $isSafe = match ($results[0]->failure) {
            Failure::Timeout => $hasPosition === true,
            Failure::Broken => !$first->isWritten || $knowsKeys(),
            default => false,
        };
        if ($isSafe) {
            $second = $this->attempt($batch, true, Attempt::until($deadline));
            if ($first->isWritten) {
                return $second[0]->isSent() ? $second : $results;
            }
            $results = $second;
        }
        if (str_starts_with($results[0]->detail ?? '', 'invalid-notification')) {
            // It may only be the key.
            $results = $this->attempt($batch, false, Attempt::until($deadline));
            $this->refusesKeys = $results[0]->isSent();
        }
        return $results;
    }

    /**
     * @param non-empty-list<Message> $batch
     * @return non-empty-list<Result> all of them sent, or all of them not
     */
    private function attempt(array $batch, bool $withKeys, Attempt $attempt): array
    {
        $messages = array_map(static fn (Message $each): string => $withKeys ? $each->keyed : $each->plain, $batch);
        $sent = self::caught(fn (): array => $this->send($messages, $attempt), $attempt);
        if (!is_array($sent)) {
            return array_fill(0, count($batch), $sent);
        }
        $this->history = $sent[0]->id === null ? $this->history : self::historyOf($sent[0]->id);
        return $sent;
    }

    /** Which history an id is of: what stands before its position, or the stream that servers share on Redis. */
    private static function historyOf(string $id): string
    {
        $parts = explode('-', $id);
        return count($parts) === 2 ? $parts[0] : 'shared';
    }

    /**
     * @param non-empty-list<string> $messages
     * @return non-empty-list<Result>
     */
    private function send(array $messages, Attempt $attempt): array
    {
        if ($this->way === Way::Http) {
            $results = $this->http->publish($messages, $attempt);
            if ($results !== null) {
                return $results;
            }
            $this->way = Way::WebSocket;
            if (count($messages) > 1) {
                throw new PublishException(Failure::Refused, 'the server does not publish over HTTP');
            }
        }
        return [match ($this->way) {
            Way::KeptWebSocket => $this->webSocket->publishKept($messages[0], $attempt),
            default => $this->webSocket->publishOnce($messages[0], $attempt),
        }];
    }

    private function askForPosition(float $deadline): Result
    {
        $attempt = Attempt::until($deadline);
        return self::caught(fn (): Result => $this->http->position($attempt), $attempt);
    }

    /**
     * @template T
     * @param Closure(): T $work
     * @return T|Result
     */
    private static function caught(Closure $work, Attempt $attempt): mixed
    {
        try {
            return $work();
        } catch (PublishException $failure) {
            return Result::failed($failure->failure, $failure->getMessage(), $attempt->isWritten);
        } catch (Throwable $failure) {
            return Result::failed(Failure::Protocol, $failure->getMessage(), $attempt->isWritten);
        }
    }
}
