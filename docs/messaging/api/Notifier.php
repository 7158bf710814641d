<?php

declare(strict_types=1);

/** Tells every crieur what has happened. What can't be told is logged: the database has it anyway. */
final class Notifier
{
    public const PACKAGE = 'amaiia_messages';
    /** A channel that is open, and gets the messages themselves. */
    public const MESSAGES = 'message_reader';
    /** The list of channels, which is told that it has changed. */
    public const CHANNELS = 'channel_list';

    /** For all servers together: as long as the user waits at worst. */
    private const SECONDS = 1.0;

    /** @param list<Crieur> $servers */
    public function __construct(private readonly array $servers)
    {
    }

    public static function fromEnvironment(): self
    {
        $token = trim(file_get_contents(getenv('PUBLISH_TOKEN_FILE')) ?: '');
        $addresses = preg_split('~\s+~', getenv('CRIEUR_PUBLISH') ?: '', flags: PREG_SPLIT_NO_EMPTY);
        $way = getenv('CRIEUR_WAY') ?: Crieur::WEBSOCKET;
        return new self(array_map(
            static fn (string $address): Crieur => new Crieur($address, $token, totalSeconds: self::SECONDS, way: $way),
            $addresses,
        ));
    }

    /**
     * A message was added: those who read the channel get it, the lists of channels have changed.
     *
     * @param array<string, mixed> $message
     * @return bool whether all servers were told
     */
    public function messageAdded(int $channel, array $message): bool
    {
        $at = ['package' => self::PACKAGE, 'filters' => ['values' => ['channel' => (string) $channel]]];
        return $this->tell([
            ['notification' => ['type' => 'chat', 'page' => self::MESSAGES, ...$at, 'message' => $message]],
            ['type' => 'refreshcontent', 'notification' => ['page' => self::CHANNELS, ...$at]],
        ]);
    }

    private function tell(array $messages): bool
    {
        $isTold = true;
        $deadline = hrtime(true) / 1e9 + self::SECONDS;
        foreach ($this->servers as $server) {
            foreach ($server->publishAll($messages, $deadline - hrtime(true) / 1e9) as $result) {
                if (!$result->isSent()) {
                    $isTold = false;
                    error_log("not notified: $result->error: $result->detail");
                }
            }
        }
        return $isTold;
    }
}
