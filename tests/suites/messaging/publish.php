<?php

declare(strict_types=1);

use Crieur\PublishException;
use Crieur\Publisher;
use Crieur\Result;
use Crieur\Way;

/*
 * Publishes with crieur/client what stands on standard input, and prints what came of it:
 *
 *     php publish.php docs/messaging unix:///path < {"notification":{…},"token":"…","way":"http"}
 *
 * With `messages` it publishes these, with `count` that many, with `calls` so often, one after the other, and with
 * `"position":true` it asks for the position.
 */

// What an application may have: the publisher must not be bothered by it.
set_error_handler(static function (int $level, string $message): never {
    throw new ErrorException($message);
});

[, $sources, $address] = $argv;
require "$sources/api/autoload.php";

$options = json_decode(stream_get_contents(STDIN), true, flags: JSON_THROW_ON_ERROR);
$crieur = new Publisher(
    $address,
    $options['token'] ?? null,
    connectSeconds: $options['connectSeconds'] ?? 0.2,
    totalSeconds: $options['totalSeconds'] ?? 1.0,
    way: Way::from($options['way'] ?? 'websocket'),
);
$notification = $options['notification'] ?? [];
if (isset($options['bytes'])) {
    $notification['text'] = base64_decode($options['bytes']);
}
$type = $options['type'] ?? 'notification';
$message = ['type' => $type, 'notification' => $notification] + array_intersect_key($options, ['keep' => 0]);
// The calls before the one whose results are told.
for ($call = 1; $call < ($options['calls'] ?? 1); $call++) {
    $crieur->publishAll(array_fill(0, $options['count'], $message));
}
$began = hrtime(true);
$results = match (true) {
    isset($options['position']) => [$crieur->position()],
    isset($options['messages']) => $crieur->publishAll($options['messages']),
    isset($options['key']) || isset($options['keep']) && !isset($options['count']) => [
        $crieur->publish($notification, $type, key: $options['key'] ?? null, keep: $options['keep'] ?? true),
    ],
    default => $crieur->publishAll(array_fill(0, $options['count'] ?? 1, $message)),
};
$millis = (hrtime(true) - $began) / 1e6;
$thrown = null;
try {
    $results[0]->orThrow();
} catch (PublishException $exception) {
    $thrown = $exception->failure;
}
$told = array_map(static fn (Result $result): array => ['error' => $result->failure, 'isLost' => $result->isLost()]
    + get_object_vars($result), $results);
echo json_encode(['results' => $told, 'millis' => $millis, 'thrown' => $thrown] + $told[0]);
