"""What SNS puts around a body is taken off."""

from lookout.body import Body
from lookout.errors import InvalidBody
from lookout.model import Nothing

_NOTIFICATION = "Notification"


def unwrap(text: str) -> Body | Nothing:
    """The body with Lookout's own keys, or why there is nothing to do; raises InvalidBody."""
    body = Body.parse(text, "the body")
    if body.get("Type") == _NOTIFICATION:
        body = _notified(body)
    match body.get("Type"):
        case "lookout.result":
            return Nothing("a result of Lookout, not a request; check who sends to this queue")
        case "SubscriptionConfirmation":
            raise InvalidBody(
                "the body is an SNS subscription that waits for its confirmation; expected a request: "
                "call ConfirmSubscription with its Token, or let the owner of the queue subscribe it"
            )
        case "UnsubscribeConfirmation":
            raise InvalidBody(
                "the body says that an SNS subscription of this queue has ended; expected a request"
            )
    return body


def _notified(notification: Body) -> Body:
    """What SNS was asked to deliver; it wraps a message once, where the delivery is not raw."""
    text = notification.text("Message", "a string of JSON, as SNS puts it there")
    body = Body.parse(text, "Message in the SNS notification")
    if body.get("Type") == _NOTIFICATION:
        raise notification.wrong("Message", "is an SNS notification in another", "a request")
    return body
