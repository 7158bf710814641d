<?php

declare(strict_types=1);

/*
 * Publishes with Crieur.php what stands on standard input, and prints what came of it:
 *
 *     php publish.php docs/messaging unix:///path < {"notification":{…},"token":"…","way":"http"}
 *
 * With `messages` it publishes these, and with `"position":true` it asks for the position.
 */

// What an application may have: the publisher must not be bothered by it.
set_error_handler(static function (int $level, string $message): never {
    throw new ErrorException($message);
});

[, $sources, $address] = $argv;
require "$sources/api/Crieur.php";

$options = json_decode(stream_get_contents(STDIN), true, flags: JSON_THROW_ON_ERROR);
$crieur = new Crieur(
    $address,
    $options['token'] ?? null,
    connectSeconds: $options['connectSeconds'] ?? 0.2,
    totalSeconds: $options['totalSeconds'] ?? 1.0,
    way: $options['way'] ?? Crieur::WEBSOCKET,
);
$notification = $options['notification'] ?? [];
if (isset($options['bytes'])) {
    $notification['text'] = base64_decode($options['bytes']);
}
$type = $options['type'] ?? 'notification';
$message = ['type' => $type, 'notification' => $notification];
$began = hrtime(true);
$results = match (true) {
    isset($options['position']) => [$crieur->position()],
    isset($options['messages']) => $crieur->publishAll($options['messages']),
    isset($options['key']) || isset($options['keep']) => [
        $crieur->publish($notification, $type, key: $options['key'] ?? null, keep: $options['keep'] ?? true),
    ],
    default => $crieur->publishAll(array_fill(0, $options['count'] ?? 1, $message)),
};
$millis = (hrtime(true) - $began) / 1e6;
$thrown = null;
try {
    $results[0]->orThrow();
} catch (CrieurException $exception) {
    $thrown = $exception->error;
}
echo json_encode(['results' => $results, 'millis' => $millis, 'thrown' => $thrown] + (array) $results[0]);
