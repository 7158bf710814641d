<?php

declare(strict_types=1);

/*
 * The API's only address: POST /ic.php with {"cmd":[{"amaiia_msg_srv":{"message":{"add":{…}}}}]}.
 *
 * The commands are carried out in order, and answered in the same form. The first that fails ends the
 * request: those before it stand, and their answers are beside the error.
 */

require __DIR__ . '/autoload.php';
require __DIR__ . '/ApiError.php';
require __DIR__ . '/ClientToken.php';
require __DIR__ . '/Database.php';
require __DIR__ . '/Notifier.php';
require __DIR__ . '/Commands.php';

const BODY_BYTES_MAX = 65536;
const COMMANDS_MAX = 20;

/** @return list<array{string, string, array<string, mixed>}> what to act on, how, and with what */
function read_commands(): array
{
    if ($_SERVER['REQUEST_METHOD'] !== 'POST') {
        header('Allow: POST');
        throw new ApiError(405, 'method', 'commands are posted');
    }
    if (!preg_match('~^application/json\s*(;|$)~i', $_SERVER['CONTENT_TYPE'] ?? '')) {
        throw new ApiError(415, 'content-type', 'Content-Type must be application/json');
    }
    $body = file_get_contents('php://input', length: BODY_BYTES_MAX + 1);
    if (strlen($body) > BODY_BYTES_MAX) {
        throw new ApiError(413, 'too-big', 'a request has at most ' . BODY_BYTES_MAX . ' bytes');
    }
    $request = json_decode($body, true, 16);
    $commands = is_array($request) ? $request['cmd'] ?? null : null;
    if (!is_array($commands) || !array_is_list($commands) || $commands === [] || count($commands) > COMMANDS_MAX) {
        throw new ApiError(400, 'invalid-json', 'expected {"cmd":[…]} with 1 to ' . COMMANDS_MAX . ' commands');
    }
    return array_map(read_command(...), $commands);
}

function read_command(mixed $command): array
{
    [$service, $inService] = only_member($command);
    [$object, $inObject] = only_member($inService);
    [$action, $arguments] = only_member($inObject);
    if ($service !== 'amaiia_msg_srv' || !is_array($arguments)) {
        throw new ApiError(400, 'unknown-command', 'expected {"amaiia_msg_srv":{OBJECT:{ACTION:{…}}}}');
    }
    return [$object, $action, $arguments];
}

function only_member(mixed $value): array
{
    if (!is_array($value) || count($value) !== 1) {
        throw new ApiError(400, 'unknown-command', 'expected {"amaiia_msg_srv":{OBJECT:{ACTION:{…}}}}');
    }
    return [(string) array_key_first($value), reset($value)];
}

$answers = [];
$status = 200;
try {
    $commands = read_commands();
    $database = Database::open();
    $user = null;
    if (preg_match('~^Bearer (\S+)$~i', $_SERVER['HTTP_AUTHORIZATION'] ?? '', $match)) {
        $user = $database->userOfSession($match[1]);
    }
    $api = new Commands($database, Notifier::fromEnvironment($database), $user, $match[1] ?? null);
    foreach ($commands as [$object, $action, $arguments]) {
        $answers[] = ['amaiia_msg_srv' => [$object => [$action => $api->run("$object/$action", $arguments)]]];
    }
    $response = ['cmd' => $answers];
} catch (ApiError $error) {
    $status = $error->status;
    $response = ['error' => ['code' => $error->word, 'detail' => $error->getMessage()], 'cmd' => $answers];
} catch (Throwable $error) {
    // What went wrong inside is for the log.
    error_log((string) $error);
    $status = 500;
    $response = ['error' => ['code' => 'internal', 'detail' => 'the API has failed'], 'cmd' => $answers];
}

http_response_code($status);
if ($status === 401) {
    header('WWW-Authenticate: Bearer');
}
header('Content-Type: application/json');
header('Cache-Control: no-store');
header('X-Content-Type-Options: nosniff');
echo json_encode($response, JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES | JSON_INVALID_UTF8_SUBSTITUTE);
