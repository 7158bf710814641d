<?php

declare(strict_types=1);

/*
 * Publishes what requests could not: `php outbox.php`, with the environment of the API. It runs for ever, once.
 */

require __DIR__ . '/autoload.php';
require __DIR__ . '/Database.php';
require __DIR__ . '/Notifier.php';

const PAUSE_MICROS = 500_000;

$database = null;
for (;;) {
    try {
        if ($database === null) {
            $database = Database::open();
            Notifier::fromEnvironment($database)->forgetRemovedServers();
        }
        $hasMore = Notifier::fromEnvironment($database)->publishLeftOver();
    } catch (Throwable $error) {
        error_log((string) $error);
        // A database that was restarted wants a new connection.
        $database = null;
        $hasMore = false;
    }
    if (!$hasMore) {
        usleep(PAUSE_MICROS);
    }
}
