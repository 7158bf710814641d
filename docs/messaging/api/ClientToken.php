<?php

declare(strict_types=1);

use Crieur\ClientKey;

/** The token with which a client shows crieur what it may subscribe to: the channels of its user. */
final class ClientToken
{
    /**
     * A user who has left a channel goes on getting its notifications until the token ends: 15 minutes.
     *
     * @param list<int> $channels
     */
    public static function sign(string $keyFile, string $login, array $channels): string
    {
        $values = ['channel' => array_map(strval(...), $channels)];
        $pages = [Notifier::MESSAGES, Notifier::CHANNELS, Notifier::TYPING];
        return ClientKey::fromFile($keyFile)->token(array_map(static fn (string $page): array => [
            'package' => Notifier::PACKAGE, 'page' => $page, 'filters' => ['values' => $values],
        ], $pages), sub: $login);
    }
}
