import { useEffect, useState } from 'react';
import { useCrieur } from '@crieur/client/react';

export default function App() {
  const [texts, setTexts] = useState([]);
  const { subscribed } = useCrieur(new URLSearchParams(location.search).get('server'), ['orders'], {
    onNotification: ({ notification }) => setTexts((before) => [...before, notification.text]),
  });
  useEffect(() => {
    if (subscribed) console.log('subscribed');
  }, [subscribed]);
  useEffect(() => {
    if (texts.length > 0) console.log(`shown: ${document.querySelector('ul').textContent}`);
  }, [texts]);
  return <ul>{texts.map((text) => <li key={text}>{text}</li>)}</ul>;
}
